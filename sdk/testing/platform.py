"""The platform in memory, for tests: the real rules and the real SDK, without servers, in no time.

    async with MemoryPlatform() as platform:
        handle = await platform.start(fulfil, order_ids=["a"])
        assert await handle.result() == "done"

It is a `Client`, so code that takes one can be given it. Workflows run in this process and event loop.

Time stands still until a test waits for something that needs it: whoever waits for a result or follows events lets time
pass, from one thing that is due to the next. `advance` lets it pass by hand, `settle` waits without it.

Invariants: nothing is read from outside the process and nothing stays behind; the same test gives the same events;
failures are those of the real platform.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from runtara.engine.memory import MemoryBus, VirtualClock
from runtara.infra.settings import Settings
from runtara.protocol.api import EventView
from runtara.protocol.errors import InstanceNotFound, ResultTimeout, RuntaraError
from runtara.protocol.ids import DEFAULT_TENANT
from runtara.protocol.messages import Done

from ..blobs import Blobs
from ..client import Client, Handle
from ..granted import ConnectionValue
from ..ports import Hints
from ..results import Watch
from ..workflow import Workflow
from .blobs import MemoryDoor
from .connections import MemoryConnections
from .host import MemoryHost
from .scripts import MemoryInstance
from .stillness import LOOK_SECONDS, Stillness
from .twins import MemoryApi, MemoryCommands, MemoryEnds, MemoryHints

BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
STEP_SECONDS: Final = 1.0  # of real time for which `settle` waits for a step in which nothing happens
STUCK_SECONDS: Final = 2.0  # of real time in which nothing happened that could
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Stuck(RuntaraError):
    """A test waits for something that nothing can bring about."""

    template = (
        "nothing can happen any more: {waiting}. Send what they wait for (`platform.signal`, `platform.resume`) "
        "before you wait, or beside it in a task of its own"
    )
    waiting: str


class MemoryPlatform(Client):
    """Hosts `workflows`, and every workflow object that is started; those started by name, as children, or by their
    names must be given.

    Args:
        tenant: whose instances these are.
        now: what its clock shows at first.
        actor: who the log says has sent the commands.
        connections: those that the workflows may open, if they name them.
    """

    def __init__(
        self,
        *workflows: Workflow[..., Any],
        tenant: str = DEFAULT_TENANT,
        now: datetime = BEGINNING,
        actor: str | None = None,
        connections: Iterable[ConnectionValue] = (),
    ) -> None:
        super().__init__(Settings(tenant=tenant), actor=actor)
        self._clock = VirtualClock((now - _EPOCH) // _MICROSECOND)
        self._bus = MemoryBus(self._clock)
        known = MemoryConnections(self._bus, tenant, connections)
        self._host = MemoryHost(self._bus, tenant, known)
        self._api = MemoryApi(self._bus, tenant, known)
        self._blobs = Blobs(MemoryDoor(self._bus.engine.blobs, tenant), patient=False)
        self._commands = MemoryCommands(self._bus, tenant)
        self._results = MemoryEnds(self._bus, tenant)
        self._stillness = Stillness(self._bus, self._host)
        self._timekeeper: asyncio.Task[None] | None = None
        self._waiters = 0
        self.host(*workflows)

    async def __aenter__(self) -> "MemoryPlatform":
        return self

    async def close(self) -> None:
        """End everything that still runs."""
        await self._host.close()

    def host(self, *workflows: Workflow[..., Any]) -> None:
        """Make these known, as a worker does at its start. Raises `InvalidTarget` if two have one name."""
        for workflow in workflows:
            self._host.host(workflow)

    if not TYPE_CHECKING:  # the overloads of Client hold here, too

        async def start(self, workflow: Any, *args: Any, **kwargs: Any) -> Handle[Any]:
            """As `Client.start`; a workflow object needs no worker."""
            if isinstance(workflow, Workflow):
                self.host(workflow)
            return await super().start(workflow, *args, **kwargs)

        async def start_or_signal(self, workflow: Any, *args: Any, **kwargs: Any) -> Handle[Any]:
            """As `Client.start_or_signal`; a workflow object needs no worker."""
            if isinstance(workflow, Workflow):
                self.host(workflow)
            return await super().start_or_signal(workflow, *args, **kwargs)

    def instance(self, id: str, *, workflow: str | None = None) -> MemoryInstance:
        """An instance that a script speaks for, as `Instance.local(id)`: hand it to the code that takes one.

        Another one of the same id is the script started again; `close` without a last record is a kill.
        """
        return MemoryInstance(self._settings, id, workflow=workflow, bus=self._bus, let_time_pass=self._let_time_pass)

    # time

    @property
    def now(self) -> datetime:
        """What the platform's clock shows."""
        return _EPOCH + timedelta(microseconds=self._clock.now_us())

    async def advance(self, delay: timedelta) -> None:
        """Let `delay` pass: everything due by then happens, in its order, and all that follows from it."""
        if delay < timedelta(0):
            raise ValueError(f"time cannot pass by {delay}: it does not run back")
        until = self._clock.now_us() + delay // _MICROSECOND
        await self.settle()
        while (due := self._bus.next_due()) is not None and due <= until:
            self._bus.move_to(due)
            await self.settle()
        self._bus.move_to(until)
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing more happens unless time passes, or you say something.

        A step that takes longer than a second (because it waits for the test, say) is left in flight.
        """
        await self._stillness.reached(within=STEP_SECONDS)

    # looking, and breaking

    def log(self, id: str) -> list[EventView]:
        """The events of an instance so far. Raises `InstanceNotFound`."""
        row = self._bus.engine.rows.get((self.tenant, id))
        if row is None:
            raise InstanceNotFound(instance=id, tenant=self.tenant)
        return list(row.events)

    async def crash(self) -> None:
        """Let the process that hosts the workflows die, as by `kill -9`; the next one goes on from the log."""
        self._host.die()
        await self.settle()

    # what Client asks for

    def _hints(self, instance: str | None) -> Hints:
        rows, key = self._bus.engine.rows, (self.tenant, instance or "")
        return MemoryHints(self._bus, self._let_time_pass, lambda: rows.get(key))

    async def _wait(self, watch: Watch, timeout: float | None) -> Done:
        waiting = asyncio.ensure_future(self._results.wait(watch))
        expired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = None if timeout is None else self._clock.call_later(timeout, _set, expired)
        try:
            await self._let_time_pass(waiting, expired)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
            if timer is not None:
                timer.cancel()
        status = str((await self.get(watch.instance)).status)
        raise ResultTimeout(instance=watch.instance, status=status, seconds=timeout or 0.0)

    async def _let_time_pass(self, *awaited: "asyncio.Future[Any]") -> None:
        """Until one of these is done. All who wait share one timekeeper. Raises `Stuck`."""
        self._waiters += 1
        if self._timekeeper is None or self._timekeeper.done():
            self._timekeeper = asyncio.create_task(self._keep_time(), name="timekeeper")
        timekeeper = self._timekeeper
        try:
            done, _ = await asyncio.wait({*awaited, timekeeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters -= 1
            if self._waiters == 0:
                await _ended(timekeeper)
        if done == {timekeeper}:
            timekeeper.result()

    async def _keep_time(self) -> None:
        while True:
            await self._stillness.reached()
            due = self._bus.next_due()
            if due is not None:
                self._bus.move_to(due)
            else:
                await self._something()

    async def _something(self) -> None:
        """Until something was said from outside."""
        loop = asyncio.get_running_loop()
        seen, since = self._stillness.changes, loop.time()
        while self._stillness.changes == seen:
            if loop.time() - since > STUCK_SECONDS:
                raise Stuck(waiting=self._standing())
            await asyncio.sleep(LOOK_SECONDS)

    def _standing(self) -> str:
        """What everybody waits for, for people."""
        waiting = []
        for row in self._bus.engine.rows.values():
            state = row.state
            if state.status.is_terminal:
                continue
            names = [f"{wait.kind} {wait.name or key!r}" for key, wait in state.waits.items()]
            hosted = "" if state.workflow in self._host.workflows else " and nobody hosts its workflow"
            waiting.append(f"{row.instance} is {state.status}{hosted}" + (f" on {', '.join(names)}" if names else ""))
        return "; ".join(waiting[:5]) or "no instance is going on"


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
