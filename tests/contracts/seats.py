"""A seat at a platform: an instance that is claimed, and the outlet for its records."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from msgspec import Raw

from runtara.engine.memory import MemoryBus, VirtualClock
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import EventsReply, EventView, Registration
from runtara.protocol.records import Checkpointed, Exited, Report, Start, Started
from runtara.protocol.subjects import Channel, Source
from runtara.sdk.connection import Connection
from runtara.sdk.outlet import Commits, JournalOutlet
from runtara.sdk.ports import Outlet
from runtara.sdk.testing import MemoryOutlet
from tests.support.peer import connect_peer
from tests.support.platform import connect, deploy, running
from tests.support.polling import eventually

R = TypeVar("R", bound=Report)
INSTANCE, TENANT, WORKER = "i-1", "default", "w-1"


class Log(Protocol):
    """What a platform shows, and how it takes a claim away."""

    async def events(self) -> list[EventView]: ...
    async def lose(self) -> None: ...


class Seat:
    """`rejections` are the reasons that the outlet gave."""

    def __init__(self, log: Log, nonce: str) -> None:
        self.outlet: Outlet
        self.log = log
        self.nonce = nonce
        self.seq = 0
        self.rejections: list[str] = []

    def report(self, kind: type[R], *, skip: int = 0, **fields: Any) -> R:
        """The next report of the claim; `skip` leaves numbers out."""
        self.seq += 1 + skip
        return kind(instance=INSTANCE, attempt=1, nonce=self.nonce, seq=self.seq, **fields)

    def step(self, key: str, *, skip: int = 0) -> Checkpointed:
        return self.report(Checkpointed, skip=skip, key=key, data=Raw(b'{"kind":"step","value":1}'))

    async def keys(self) -> list[str]:
        return [event.key or "" for event in await self.log.events() if event.type == "CheckpointSaved"]

    async def until_keys(self, *keys: str) -> None:
        async def are_there() -> bool:
            return await self.keys() == [*keys]

        await eventually(are_there)


class _MemoryLog:
    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def events(self) -> list[EventView]:
        return list(self.bus.engine.rows[TENANT, INSTANCE].events)

    async def lose(self) -> None:
        lost = Exited(instance=INSTANCE, attempt=1, worker=WORKER, reason="killed")
        await self.bus.store(Source(Channel.RUNNER, 0, TENANT, runner="r1"), lost)
        await self.bus.next_fold()


@asynccontextmanager
async def memory_seat() -> AsyncIterator[Seat]:
    bus = MemoryBus(VirtualClock(1_000_000))
    source = Source(Channel.REPORTS, 0, TENANT, worker=WORKER)
    bus.engine.register(TENANT, Registration(workflow="wf"))
    seat = Seat(_MemoryLog(bus), "n-1")
    await bus.store(Source(Channel.COMMANDS, 0, TENANT, client="c"), Start(id="s", instance=INSTANCE, workflow="wf"))
    await bus.store(source, Started(instance=INSTANCE, attempt=1, nonce=seat.nonce, worker=WORKER))
    seat.outlet = MemoryOutlet(bus, lambda record: bus.store(source, record), seat.rejections.append)
    yield seat


class _RealLog:
    def __init__(self, peer: Any) -> None:
        self.peer = peer

    async def events(self) -> list[EventView]:
        reply: EventsReply = await self.peer.api("events", {}, EventsReply, INSTANCE)
        return reply.events

    async def lose(self) -> None:
        await self.peer.report_as_runner(Exited(instance=INSTANCE, attempt=1, worker=WORKER, reason="killed"))


@asynccontextmanager
async def real_seat(settings: Settings) -> AsyncIterator[Seat]:
    await deploy(settings)
    async with (
        running(settings),
        connect_peer(settings) as peer,
        await connect(settings, user=WORKER) as bus,
    ):
        await peer.register("wf")
        held = await peer.started(INSTANCE, worker=WORKER)
        connection = Connection(bus, settings, None, WORKER, 1)
        writer = JournalWriter(bus, lambda p: connection.subjects.worker_reports(p, TENANT, WORKER))
        commits = Commits(connection)
        await commits.open()
        seat = Seat(_RealLog(peer), held.nonce)
        seat.outlet = JournalOutlet(connection, writer, commits, 0, seat.rejections.append)
        try:
            yield seat
        finally:
            await commits.close()
            await writer.close()
