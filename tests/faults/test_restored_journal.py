"""NATS restored from an older back-up, or wiped, under everything that runs: a clear error, never silence."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtara.compose.embedded import EmbeddedServers
from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.errors import JournalLost, JournalMismatch, RuntaraError
from runtara.protocol.frames import encode_record
from runtara.protocol.records import Pause
from tests.support.peer import Held, Peer, connect_peer
from tests.support.platform import running
from tests.support.polling import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture
async def peer(site: Settings) -> AsyncIterator[Peer]:
    async with connect_peer(site) as peer:
        yield peer


class BackUp:
    """The folder of NATS, copied while the server was down, and put back later."""

    def __init__(self, servers: EmbeddedServers, data: Path) -> None:
        self._servers = servers
        self._folder = servers.nats.spec.folder
        self._copy = data.parent / "back-up"

    async def make(self) -> None:
        await self._servers.nats.stop()
        shutil.copytree(self._folder, self._copy)
        await self._servers.nats.start()

    async def restore(self) -> None:
        await self._servers.nats.stop()
        shutil.rmtree(self._folder)
        shutil.copytree(self._copy, self._folder)
        await self._servers.nats.start()


@pytest.fixture
def back_up(own_servers: EmbeddedServers, data: Path) -> BackUp:
    return BackUp(own_servers, data)


async def reconnected(peer: Peer) -> None:
    await eventually(lambda: peer.bus.is_connected, within=20)


async def work(peer: Peer, held: Held, start: int, count: int) -> None:
    for n in range(start, start + count):
        await held.commit(held.step(f"k-{n}"))


async def test_records_under_reused_numbers_are_not_taken_for_those_that_follow(
    site: Settings, peer: Peer, back_up: BackUp
) -> None:
    """The stream keeps its creation time and soon ends beyond the cursor again: only the message there tells."""
    async with running(site):
        await peer.register("wf")
        held = await peer.started("i-1")
        await work(peer, held, 0, 3)
    await back_up.make()
    await reconnected(peer)
    async with running(site):
        await work(peer, held, 3, 3)
    await back_up.restore()
    await reconnected(peer)
    for n in range(30):
        await held.publish(held.step(f"lost-{n}"))
    before = await peer.types("i-1")
    async with Engine(site) as engine:
        with pytest.raises(JournalMismatch, match="is not the one that was folded there"):
            async with asyncio.timeout(20):
                await engine.failed()
    assert await peer.types("i-1") == before


async def test_an_engine_notices_it_when_it_reconnects(site: Settings, peer: Peer, back_up: BackUp) -> None:
    await back_up.make()
    await reconnected(peer)
    async with Engine(site) as engine:
        await peer.register("wf")
        held = await peer.started("i-1")
        await work(peer, held, 0, 3)
        await back_up.restore()
        with pytest.raises(JournalMismatch):
            async with asyncio.timeout(20):
                await engine.failed()


async def test_a_writer_whose_numbers_go_back_says_that_the_journal_was_lost(
    site: Settings, peer: Peer, back_up: BackUp
) -> None:
    await back_up.make()
    await reconnected(peer)
    fatal: list[RuntaraError] = []
    writer = JournalWriter(peer.bus, lambda p: peer.subjects.commands(p, "default", "c1"), on_fatal=fatal.append)
    record = encode_record(Pause(instance="i-1", id="p-1"))
    for _ in range(5):
        await writer.send(0, record)
    await back_up.restore()
    await reconnected(peer)
    with pytest.raises(JournalLost, match="it acknowledged"):
        await writer.send(0, record)
    assert [type(error) for error in fatal] == [JournalLost]
    await writer.close()


async def test_a_wiped_disk_of_nats_stops_the_engine_that_runs(
    site: Settings, peer: Peer, own_servers: EmbeddedServers
) -> None:
    async with Engine(site) as engine:
        await peer.register("wf")
        await peer.started("i-1")
        before = await peer.types("i-1")
        await own_servers.nats.stop()
        shutil.rmtree(own_servers.nats.spec.folder / "store")
        await own_servers.nats.start()
        with pytest.raises(JournalMismatch, match="does not exist any more"):
            async with asyncio.timeout(20):
                await engine.failed()
    assert await peer.types("i-1") == before
