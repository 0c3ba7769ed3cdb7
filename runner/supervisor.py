"""Keeps a number of worker processes running: starts them, restarts them, replaces them, ends them.

Invariants: a process that ends is reported with what it hosted before it is replaced; one that ran for a while
is replaced at once, one that keeps ending is replaced more and more slowly; a reload starts the new process
first and keeps the old one if the new one does not get ready; one that says that code in it does not end is replaced
at once, and that is no failure; on the way out every process is asked to drain, and killed only after that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import msgspec

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.protocol.errors import Unavailable
from runtara.sdk.overdue import EXIT_OVERDUE

from .child import Child, Ended

log = logger("runner")

BAD_TARGET: Final = 2  # a worker's exit code when its target cannot be loaded: starting it again would not help
HEALTHY_SECONDS: Final = 10.0
FIRST_DELAY_SECONDS: Final = 0.25
MAX_DELAY_SECONDS: Final = 15.0
DRAIN_MARGIN_SECONDS: Final = 10.0  # beyond a worker's own grace, before it is killed


class WorkersFailed(Unavailable):
    """Worker processes cannot be started; their own words were on stderr."""

    template = "the worker process ended before it was ready: {reason}"
    reason: str
    code: int


class Backoff(msgspec.Struct):
    """How long to wait before the next start."""

    failures: int = 0

    def delay_after(self, lived: float) -> float:
        """Of a process that lived for so many seconds: none if that was long, or the first time it was short."""
        if lived >= HEALTHY_SECONDS:
            self.failures = 0
            return 0.0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        return min(FIRST_DELAY_SECONDS * 2.0 ** (self.failures - 2), MAX_DELAY_SECONDS)


class Supervisor(Service):
    """Runs `processes` copies of `command`. `on_ended` is told of every end; `reloads` says when to replace them.

    `environ` gives each process its own: a credential is one process's, for as long as that lives.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Callable[[], Awaitable[dict[str, str]]],
        *,
        processes: int,
        grace: float,
        on_ended: Callable[[Ended], None],
        reloads: AsyncIterator[list[str]] | None = None,
        forward: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__("supervisor")
        self._command = list(command)
        self._environ = environ
        self._grace = grace
        self._on_ended = on_ended
        self._reloads = reloads
        self._forward = forward
        self._slots = [_Slot() for _ in range(processes)]
        self._retiring: set[asyncio.Task[Ended]] = set()
        self._stopping = False

    @property
    def children(self) -> list[Child]:
        """The processes that are in service or starting."""
        return [slot.child for slot in self._slots if slot.child is not None]

    async def open(self) -> None:
        """All processes are ready when this returns. Raises `WorkersFailed` if one cannot be; without reloads only."""
        tasks = [self.spawn(self._keep(slot), f"slot {n}") for n, slot in enumerate(self._slots)]
        if self._reloads is not None:
            self.spawn(self._reload_on(self._reloads), "reload", may_end=True)
        ready = asyncio.create_task(self._all_ready())
        try:
            done, _ = await asyncio.wait({ready, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {ready}:
                task.result()
        finally:
            ready.cancel()

    async def _all_ready(self) -> None:
        for slot in self._slots:
            await slot.ready.wait()

    async def drain(self) -> None:
        self._stopping = True
        grace = self._grace + DRAIN_MARGIN_SECONDS
        ends = [self._retire(child, grace) for child in self.children]
        await asyncio.gather(*ends, *self._retiring)

    async def _close(self) -> None:
        await super()._close()
        for child in self.children:  # left by an `open` that failed
            if not child.ended.done():
                await child.stop(0)

    async def _keep(self, slot: "_Slot") -> None:
        """Keep one slot filled until the supervisor stops."""
        backoff = Backoff()
        while True:
            child = await self._fill(slot)
            ended = await self._attend(slot, child)
            if ended is None or self._stopping:
                self._let_go(slot, child)
                continue
            if slot.child is child:
                slot.child = None
            self._on_ended(ended)
            await self._before_restart(slot, ended, backoff)

    async def _fill(self, slot: "_Slot") -> Child:
        if self._stopping:
            await asyncio.Event().wait()  # `drain` is at work, and ends this task
        async with slot.filling:
            if slot.child is None:
                slot.child = await self._spawn()
            return slot.child

    async def _attend(self, slot: "_Slot", child: Child) -> Ended | None:
        """The end of `child`; None if it was replaced, or is to be."""
        if await child.wait_ready():
            slot.ready.set()
        slot.replaced.clear()
        others = [asyncio.create_task(event.wait()) for event in (slot.replaced, child.worn_out)]
        try:
            await asyncio.wait({child.ended, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for other in others:
                other.cancel()
        return child.ended.result() if child.ended.done() and slot.child is child else None

    def _let_go(self, slot: "_Slot", child: Child) -> None:
        """A process that is worn out hands over what it has while another one takes its place."""
        if slot.child is child and not self._stopping:
            log.warning("worker_worn_out", worker=child.worker, pid=child.pid)
            slot.child = None
            self._retire_beside(child)

    async def _before_restart(self, slot: "_Slot", ended: Ended, backoff: Backoff) -> None:
        log.warning("worker_exited", worker=ended.worker, reason=ended.reason, lived=round(ended.lived, 3))
        if ended.code == BAD_TARGET and not ended.was_ready:
            if self._reloads is None:
                raise WorkersFailed(reason=ended.reason, code=ended.code)
            await slot.replaced.wait()  # the next change may mend it
            return
        delay = 0.0 if ended.code == EXIT_OVERDUE else backoff.delay_after(ended.lived)
        if delay:
            log.info("worker_restarts", seconds=delay)
            await asyncio.sleep(delay)

    async def _spawn(self) -> Child:
        return await Child.spawn(self._command, await self._environ(), forward=self._forward)

    async def _reload_on(self, reloads: AsyncIterator[list[str]]) -> None:
        async for files in reloads:
            log.info("sources_changed", files=files[:5], count=len(files))
            for slot in self._slots:
                if not await self._replace(slot):
                    break

    async def _replace(self, slot: "_Slot") -> bool:
        """A new process into `slot`; False, and all as it was, if it does not get ready."""
        async with slot.filling:
            new = await self._spawn()
            if not await new.wait_ready():
                ended = await new.ended
                log.error("reload_failed", reason=ended.reason, kept=slot.child.worker if slot.child else None)
                return False
            old, slot.child = slot.child, new
            slot.replaced.set()
        if old is not None:
            self._retire_beside(old)
        log.info("worker_reloaded", old=old.worker if old else None, new=new.worker)
        return True

    def _retire_beside(self, child: Child) -> None:
        retiring = asyncio.create_task(self._retire(child, self._grace + DRAIN_MARGIN_SECONDS), name="retire")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, child: Child, grace: float) -> Ended:
        ended = await child.stop(grace)
        self._on_ended(ended)
        return ended


class _Slot:
    """A place for one process; `replaced` is set when a reload put another one into it."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.ready = asyncio.Event()
        self.replaced = asyncio.Event()
        self.filling = asyncio.Lock()
