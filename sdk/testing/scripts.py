"""The in-memory twin of the low-level `Instance`: a script's own instance on the in-memory platform.

Invariants: it is the SDK's own `Instance`; only what carries its messages, and its clock, is another. While a script
waits, time passes; between two calls it stands still.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from runtara.engine.memory import MemoryBus
from runtara.infra.settings import Settings
from runtara.protocol.errors import InstanceNotFound
from runtara.protocol.messages import ClaimAnswer, Claimed, Status
from runtara.protocol.records import Registered
from runtara.protocol.subjects import Channel, Source

from ..blobs import Blobs
from ..instance import Instance
from ..presence import Listener, Presence
from .blobs import MemoryDoor
from .outlet import MemoryOutlet

LetTimePass = Callable[["asyncio.Future[Any]"], Awaitable[None]]


class MemoryPresence(Presence):
    """The twin of `Presence`. Closing it without a last record is what a kill is: the platform knows at once."""

    def __init__(
        self, settings: Settings, instance: str, listener: Listener, *, bus: MemoryBus, let_time_pass: LetTimePass
    ) -> None:
        super().__init__(settings, instance, listener)
        self.clock = bus.clock
        self._bus = bus
        self._let_time_pass = let_time_pass
        self._tenant = settings.tenant
        self._source = Source(Channel.REPORTS, 0, settings.tenant, instance=instance)

    async def wait(self, news: "asyncio.Future[None]") -> None:
        await self._let_time_pass(news)

    async def close(self) -> None:
        if self.is_open:
            self._bus.leave(self._tenant, self.worker)
            self._bus.engine.lose_worker(self._tenant, self.worker, "the script ended")
            self._bus.fold_soon()

    async def _open(self) -> None:
        self.blobs = Blobs(MemoryDoor(self._bus.engine.blobs, self._tenant, self.id), patient=True)
        self.outlet = MemoryOutlet(self._bus, lambda record: self._bus.store(self._source, record), self.stop)
        self._bus.join(self._tenant, self.worker, self._hear)

    async def _answer(self, record: Registered) -> ClaimAnswer:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        reply = self._bus.expect(answered.set_result)
        try:
            self._bus.store(self._source, msgspec.structs.replace(record, reply=reply))
            answer: ClaimAnswer = await answered
        finally:
            self._bus.forget(reply)
        return answer

    async def _whole(self, claimed: Claimed) -> Claimed:
        """Answers in memory are never cut."""
        return claimed

    async def _status(self) -> Status:
        row = self._bus.engine.rows.get((self._tenant, self.id))
        if row is None:
            raise InstanceNotFound(instance=self.id, tenant=self._tenant)
        return row.state.status


class MemoryInstance(Instance):
    """The twin of `Instance`. Make it with `MemoryPlatform.instance`."""

    def __init__(
        self, settings: Settings, instance: str, *, workflow: str | None, bus: MemoryBus, let_time_pass: LetTimePass
    ) -> None:
        self._bus = bus
        self._let_time_pass = let_time_pass
        super().__init__(settings, instance, workflow=workflow)

    def _made_present(self) -> Presence:
        return MemoryPresence(self._settings, self._id, self, bus=self._bus, let_time_pass=self._let_time_pass)
