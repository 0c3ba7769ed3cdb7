"""Keeps a container running for each workflow whose image is pooled: starts, restarts, replaces and ends it.

Invariants: there is one container for a workflow, but while one replaces another: the new one first, and the old one is
asked to hand over once the new one takes requests; one that does not get that far leaves the old one in its place, and
is tried again more and more slowly. Every end is told, with what it hosted, before the container is removed, and its
credential is good for nothing from then on. Containers outlive a keeper that dies, and are found again; a keeper that
is asked to leave has them hand over and end.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.protocol.ids import pooled_worker
from runtara.protocol.records import Image

from .launches import Ending, LaunchFailed
from .pooled import Pooled, PooledLauncher, PooledOrder, fingerprint
from .supervisor import DRAIN_MARGIN_SECONDS, Backoff

log = logger("runner")

GIVE_UP_SECONDS: Final = 10.0  # for a launch that is under way, before what it launches is given up
Credentials = Callable[[str, str], Awaitable[str | None]]  # of a workflow and its worker. Raises `LaunchFailed`
Tell = Callable[[Pooled, Ending], Awaitable[None]]
Revoke = Callable[[str], Awaitable[None]]  # the credential of a worker; what fails is not for the keeper


class Keeper(Service):
    """`tenant`'s pooled containers. `drain_seconds`: what each gives itself to hand over."""

    def __init__(
        self, launcher: PooledLauncher, tenant: str, *, credentials: Credentials, tell: Tell, revoke: Revoke,
        ready_seconds: float, drain_seconds: float,
    ) -> None:  # fmt: skip
        super().__init__("keeper")
        self._launcher = launcher
        self._tenant = tenant
        self._credentials = credentials
        self._tell = tell
        self._revoke = revoke
        self._ready_seconds = ready_seconds
        self._grace = drain_seconds + DRAIN_MARGIN_SECONDS
        self._places: dict[str, _Place] = {}

    @property
    def containers(self) -> list[Pooled]:
        """Those that run, as far as is known."""
        return [kept.container for place in self._places.values() for kept in place.kept]

    async def open(self) -> None:
        for container in await self._launcher.pooled_left_behind():
            log.info("pooled_adopted", workflow=container.workflow, worker=container.worker)
            self._look_after(self._places.setdefault(container.workflow, _Place(container.workflow)), container)

    def want(self, images: Mapping[str, Image]) -> None:
        """From now on there shall be a container for each of these workflows, and for no other."""
        for workflow in self._places.keys() - images.keys():
            place = self._places.pop(workflow)
            log.info("pooled_not_wanted", workflow=workflow)
            self.spawn(self._give_up(place), f"give up {workflow}", may_end=True)
        for workflow, image in images.items():
            place = self._places.setdefault(workflow, _Place(workflow))
            if place.image != image:
                place.image = image
                place.changed.set()
            if place.keeping is None:
                place.keeping = self.spawn(self._keep(place), f"keep {workflow}")

    async def drain(self) -> None:
        places, self._places = list(self._places.values()), {}
        await asyncio.gather(*map(self._give_up, places))

    # one workflow

    async def _keep(self, place: "_Place") -> None:
        backoff = Backoff()
        while True:
            if place.changed.is_set():
                place.changed.clear()
                backoff = Backoff()
            serving = place.serving() or await self._started(place)
            if serving is None:
                await place.pause(backoff.delay_after(0.0))
                continue
            for other in place.kept:
                if other is not serving and not other.retiring:
                    self.spawn(self._retire(other), f"retire {other.container.worker}", may_end=True)
            await place.first_of(serving.gone)
            if serving.gone.is_set():
                await place.pause(backoff.delay_after(serving.container.age))

    async def _started(self, place: "_Place") -> "_Kept | None":
        """A new container that takes requests; None if it was not to be had."""
        place.launching = self.spawn(self._launched(place), f"launch {place.workflow}", may_end=True)
        kept = await asyncio.shield(place.launching)
        if kept is None:
            return None
        worker = kept.container.worker
        if await self._is_ready(kept):
            log.info("pooled_ready", workflow=place.workflow, worker=worker)
            return kept
        if not kept.gone.is_set():
            log.error("pooled_not_ready", workflow=place.workflow, worker=worker, seconds=self._ready_seconds)
            await self._retire(kept)
        return None

    async def _launched(self, place: "_Place") -> "_Kept | None":
        """A task of its own, so that nothing is launched of which nobody knows."""
        image, worker = place.image, pooled_worker(place.workflow)
        assert image is not None
        try:
            credential = await self._credentials(place.workflow, worker)
            order = PooledOrder(
                tenant=self._tenant, workflow=place.workflow, image=image, worker=worker, credential=credential
            )
            return self._look_after(place, await self._launcher.launch_pooled(order))
        except LaunchFailed as exc:
            log.error("pooled_not_launched", workflow=place.workflow, reason=str(exc))
            return None

    async def _is_ready(self, kept: "_Kept") -> bool:
        ready = asyncio.create_task(kept.container.ready())
        gone = asyncio.create_task(kept.gone.wait())
        try:
            await asyncio.wait({ready, gone}, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            return ready.done() and not gone.done()
        finally:
            ready.cancel()
            gone.cancel()
            await asyncio.gather(ready, gone, return_exceptions=True)

    async def _give_up(self, place: "_Place") -> None:
        if place.keeping is not None:
            place.keeping.cancel()
            await asyncio.gather(place.keeping, return_exceptions=True)
        if place.launching is not None:
            await asyncio.wait({place.launching}, timeout=GIVE_UP_SECONDS)
            place.launching.cancel()
        await asyncio.gather(*map(self._retire, place.kept))

    # one container

    def _look_after(self, place: "_Place", container: Pooled) -> "_Kept":
        kept = _Kept(container)
        place.kept.append(kept)
        kept.seeing = self.spawn(self._see_to(place, kept), f"see to {container.worker}", may_end=True)
        return kept

    async def _see_to(self, place: "_Place", kept: "_Kept") -> None:
        container = kept.container
        ending = await container.ended()
        place.kept.remove(kept)
        kept.gone.set()
        say = log.info if kept.retiring else log.warning
        say("pooled_ended", workflow=container.workflow, worker=container.worker, reason=ending.reason,
            stderr=ending.stderr[-500:])  # fmt: skip
        await self._tell(container, ending)
        await self._revoke(container.worker)
        await container.forget()

    async def _retire(self, kept: "_Kept") -> None:
        """Until its end is told."""
        kept.retiring = True
        await kept.container.stop(self._grace)
        if kept.seeing is not None:
            await asyncio.gather(kept.seeing, return_exceptions=True)


class _Kept:
    """A container that runs, or whose end is not known yet."""

    def __init__(self, container: Pooled) -> None:
        self.container = container
        self.gone = asyncio.Event()
        self.retiring = False
        self.seeing: asyncio.Task[None] | None = None


class _Place:
    """A workflow, and what hosts it. `changed`: another image is wanted."""

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow
        self.image: Image | None = None
        self.changed = asyncio.Event()
        self.kept: list[_Kept] = []
        self.keeping: asyncio.Task[None] | None = None
        self.launching: asyncio.Task[_Kept | None] | None = None

    def serving(self) -> _Kept | None:
        """The container that is made of what is wanted."""
        wanted = fingerprint(self.image) if self.image is not None else ""
        return next((kept for kept in self.kept if kept.container.made_of == wanted and not kept.retiring), None)

    async def first_of(self, event: asyncio.Event) -> None:
        """Until `event`, or another image is wanted."""
        waits = [asyncio.create_task(one.wait()) for one in (event, self.changed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def pause(self, seconds: float) -> None:
        """Cut short when another image is wanted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()
