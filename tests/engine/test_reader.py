"""Reading the journal: in order, whole frames, and never past a gap."""

import asyncio

import pytest
from msgspec import Raw

from runtara.engine.reader import Frame, JournalReader, ReadAgain
from runtara.infra.settings import Settings
from runtara.protocol.frames import encode_frame
from runtara.protocol.limits import MAX_OUTSTANDING_BYTES
from runtara.protocol.records import Pause, Signal
from tests.support.peer import Peer
from tests.support.platform import connect
from tests.support.polling import eventually
from tests.support.proxy import proxy_of


async def fill(peer: Peer, *counts: int) -> None:
    """Frames of so many records each."""
    for count in counts:
        await peer.say(*(Pause(instance="i-1", id=f"p-{n}") for n in range(count)))


async def read(reader: JournalReader, frames: int) -> list[Frame]:
    found: list[Frame] = []
    async with asyncio.timeout(10):
        while len(found) < frames:
            found += await reader.next_batch()
    return found


async def test_frames_come_in_order_from_behind_the_cursor_and_then_as_they_are_published(peer: Peer) -> None:
    await fill(peer, 1, 2, 3)
    async with JournalReader(peer.bus, peer.subjects.journal_stream(0), after=1) as reader:
        assert [(frame.sequence, len(frame.records)) for frame in await read(reader, 2)] == [(2, 2), (3, 3)]
        await fill(peer, 4)
        (frame,) = await read(reader, 1)
        assert (frame.sequence, len(frame.records)) == (4, 4)
        assert frame.data == encode_frame([Pause(instance="i-1", id=f"p-{n}") for n in range(4)])


async def test_a_batch_holds_whole_frames_up_to_a_thousand_records(peer: Peer) -> None:
    await fill(peer, *[400] * 5)
    async with JournalReader(peer.bus, peer.subjects.journal_stream(0), after=0) as reader:
        batches: list[int] = []
        async with asyncio.timeout(10):
            while sum(batches) < 2_000:
                batches.append(sum(len(frame.records) for frame in await reader.next_batch()))
    assert all(batch % 400 == 0 and batch <= 1_200 for batch in batches)


async def test_nothing_behind_a_gap_is_handed_out(peer: Peer) -> None:
    await fill(peer, 1, 1, 1, 1)
    stream = peer.subjects.journal_stream(0)
    await peer.bus.jetstream(f"STREAM.MSG.DELETE.{stream}", {"seq": 3})
    async with JournalReader(peer.bus, stream, after=0) as reader:
        found: list[int] = []

        async def read() -> None:
            while True:
                found.extend(frame.sequence for frame in await reader.next_batch())

        with pytest.raises(ReadAgain, match="message 4 came after 2"):
            await asyncio.wait_for(read(), 10)
    assert found == [1, 2]


async def test_a_reader_ends_with_its_consumer(peer: Peer) -> None:
    stream = peer.subjects.journal_stream(0)
    async with JournalReader(peer.bus, stream, after=0) as reader:
        waiting = asyncio.ensure_future(reader.next_batch())
        await peer.bus.jetstream(f"STREAM.DELETE.{stream}")
        with pytest.raises(ReadAgain):
            async with asyncio.timeout(10):
                await waiting


async def test_a_reader_does_not_outlive_its_connection(deployed: Settings, peer: Peer) -> None:
    async with proxy_of(deployed.require_nats_url()) as proxy, await connect(deployed, url=proxy.url) as bus:
        async with JournalReader(bus, peer.subjects.journal_stream(0), after=0) as reader:
            waiting = asyncio.ensure_future(reader.next_batch())
            await proxy.cut()
            await eventually(lambda: not bus.is_connected)
            await proxy.mend()
            with pytest.raises(ReadAgain):
                async with asyncio.timeout(10):
                    await waiting
        await fill(peer, 1)
        async with JournalReader(bus, peer.subjects.journal_stream(0), after=0) as again:
            assert [frame.sequence for frame in await read(again, 1)] == [1]


async def test_no_more_is_read_ahead_than_the_limit_however_large_the_frames_are(peer: Peer) -> None:
    frames = 24
    for n in range(frames):
        large = Signal(instance="i-1", id=f"s-{n}", name="large", data=Raw(b'"' + b"x" * 2_000_000 + b'"'))
        await peer.say(large)
    async with JournalReader(peer.bus, peer.subjects.journal_stream(0), after=0) as reader:
        held: list[int] = []

        def looked_often() -> bool:  # long enough for everything to arrive, if everything were asked for
            held.append(reader.held_bytes)
            return len(held) > 100

        await eventually(looked_often)
        assert 0 < max(held) <= MAX_OUTSTANDING_BYTES
        assert len(await read(reader, frames)) == frames
