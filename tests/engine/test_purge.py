"""Purging: behind the commit, never the message at the cursor, and never so fast that a restore finds nothing."""

import asyncio
import dataclasses

import pytest

from runtara.engine import purge
from runtara.engine.streams import StreamState, stream_info
from runtara.infra.settings import Settings
from runtara.protocol.records import Pause
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "LOOK_EVERY_SECONDS", 0.1)


async def state(peer: Peer) -> StreamState:
    info = await stream_info(peer.bus, peer.subjects.journal_stream(0))
    assert info is not None
    return info.state


async def fill(peer: Peer, frames: int, size: int) -> None:
    held = await peer.started("i-1")
    value = b'"%s"' % (b"x" * size)
    for n in range(frames):
        await held.publish(held.step(f"k-{n}", value))
    await held.complete()


async def test_what_is_older_than_it_must_be_kept_is_purged_but_for_the_last(settings: Settings) -> None:
    settings = dataclasses.replace(settings, journal_keep_seconds=0)
    await deploy(settings)
    async with running(settings), connect_peer(settings) as peer:
        await peer.register("wf")
        await fill(peer, 20, 100)

        await eventually(lambda: _purged_beyond(peer, 20))
        assert (await state(peer)).first_seq <= await peer.cursor()
    async with running(settings), connect_peer(settings) as peer:  # knows its journal again
        assert (await peer.start("i-2")).error is None


async def test_what_is_young_stays(platform: Peer) -> None:
    await fill(platform, 20, 100)
    await platform.start("i-2")
    assert (await state(platform)).first_seq == 1


async def test_a_journal_over_a_quarter_full_is_purged_whatever_its_age(settings: Settings) -> None:
    settings = dataclasses.replace(settings, journal_max_bytes=4_000_000)
    await deploy(settings)
    async with running(settings), connect_peer(settings) as peer:
        await peer.register("wf")
        await fill(peer, 60, 50_000)

        async def small_enough() -> bool:
            return (await state(peer)).bytes <= 1_100_000

        await eventually(small_enough)
        assert (await state(peer)).first_seq > 1
        assert (await state(peer)).first_seq <= await peer.cursor()


async def test_nothing_that_is_not_committed_is_purged(settings: Settings) -> None:
    settings = dataclasses.replace(settings, journal_keep_seconds=0)
    await deploy(settings)
    async with running(settings), connect_peer(settings) as peer:
        await peer.register("wf")
        held = await peer.started("i-1")
        await eventually(lambda: _purged_beyond(peer, 4))
        async with peer.pool.acquire() as connection, connection.transaction():
            cursor = await connection.fetchval("SELECT cursor FROM partitions FOR UPDATE")  # nobody can commit now
            last = [await held.publish(held.step(f"k-{n}")) for n in range(10)][-1]
            await asyncio.sleep(0.5)  # it looks five times
            assert (await state(peer)).first_seq <= cursor
        await peer.folded(last)
        await held.complete()
    assert (await peer_types(settings)).count("CheckpointSaved") == 10


async def _purged_beyond(peer: Peer, sequence: int) -> bool:
    """A mark is set now and then, by a commit: keep it committing."""
    await peer.say(Pause(instance="nobody", id="p"))
    return (await state(peer)).first_seq > sequence


async def peer_types(settings: Settings) -> list[str]:
    async with connect_peer(settings) as peer:
        return await peer.types("i-1")
