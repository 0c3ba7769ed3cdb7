"""A full journal refuses and never drops: publishers wait, the engine purges, timers and control get in again."""

import asyncio
import dataclasses

import pytest
from msgspec import Raw

from runtara.engine import purge
from runtara.infra.bus import PublishRefused
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import child_id
from runtara.protocol.records import Cancel, ChildRequest, Completed, Parked, Suspended
from tests.support.peer import Held, Peer, connect_peer
from tests.support.platform import deploy, running

VALUE = b'"%s"' % (b"x" * 40_000)


@pytest.fixture
async def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A deployment whose journal takes two megabytes."""
    monkeypatch.setattr(purge, "LOOK_EVERY_SECONDS", 0.2)
    settings = dataclasses.replace(settings, journal_max_bytes=2_000_000)
    await deploy(settings)
    return settings


async def fill(peer: Peer, held: Held) -> int:
    """Steps until the journal refuses another; the last sequence that it took."""
    last = 0
    for n in range(200):
        try:
            last = await held.publish(held.step(f"k-{n}", VALUE))
        except PublishRefused as refused:
            if not refused.is_full:
                raise
            held.seq -= 1
            return last
    raise AssertionError("the journal takes more than it should")


async def test_ten_times_what_the_journal_holds_passes_through_it(small: Settings) -> None:
    async with running(small), connect_peer(small) as peer:
        await peer.register("wf")
        held = await peer.started("i-1")
        writer = JournalWriter(peer.bus, lambda p: peer.subjects.worker_reports(p, "default", "w1"))
        sent = [writer.send(0, encode_record(held.step(f"k-{n}", VALUE))) for n in range(500)]
        sent.append(writer.send(0, encode_record(held.record(Completed))))
        async with asyncio.timeout(60):
            sequences = await asyncio.gather(*sent)
        await writer.close()
        await peer.until_status("i-1", "completed", within=20)
        assert sequences == sorted(sequences)
        assert (await peer.types("i-1")).count("CheckpointSaved") == 500
        await peer.is_sound()


async def test_what_was_acknowledged_before_the_journal_was_full_is_all_there(small: Settings) -> None:
    async with connect_peer(small) as peer:
        async with running(small):
            await peer.register("wf")
            held = await peer.started("i-1")
        last = await fill(peer, held)
        async with running(small):
            await peer.folded(last)
            await held.complete()
        assert (await peer.types("i-1")).count("CheckpointSaved") == held.seq - 1
        await peer.is_sound()


async def test_a_publisher_waits_while_it_is_full_and_goes_on_when_the_engine_has_purged(small: Settings) -> None:
    async with connect_peer(small) as peer:
        async with running(small):
            await peer.register("wf")
            held = await peer.started("i-1")
        await fill(peer, held)
        writer = JournalWriter(peer.bus, lambda p: peer.subjects.worker_reports(p, "default", "w1"))
        waiting = writer.send(0, encode_record(held.step("late", VALUE)))
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        async with running(small), asyncio.timeout(30):
            await waiting
            await peer.folded(waiting.result())
        await writer.close()
        assert (await peer.events("i-1"))[-1]["key"] == "late"


async def test_timers_and_commands_get_in_after_a_journal_was_full(small: Settings) -> None:
    async with connect_peer(small) as peer:
        async with running(small):
            await peer.register("wf")
            sleeper, talker = await peer.started("sleeper"), await peer.started("talker")
            await sleeper.commit(
                sleeper.record(Parked, key="nap", kind="sleep", for_us=300_000),
                sleeper.record(Suspended, reason="parked", keys=("nap",)),
            )
            await peer.start("waiting")
        await fill(peer, talker)
        async with running(small):
            await peer.until_status("sleeper", "queued", within=20)
            assert (await peer.ask(Cancel(instance="waiting", id="c-1"))).status == "cancelled"
            await talker.complete()
        await peer.is_sound()


async def test_two_full_journals_do_not_wait_for_each_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parents of each partition have asked for children in the other, and both journals are full."""
    monkeypatch.setattr(purge, "LOOK_EVERY_SECONDS", 0.2)
    settings = dataclasses.replace(settings, journal_max_bytes=2_000_000, partitions=2)
    await deploy(settings)
    async with connect_peer(settings) as peer:
        parents = [next(id for id in (f"p-{n}" for n in range(99)) if peer.partition(id) == p) for p in (0, 1)]
        async with running(settings):
            await peer.register("wf")
            held = [await peer.started(parent) for parent in parents]
        children = []
        for one in held:
            keys = [k for k in (f"k{n}" for n in range(200)) if _crosses(peer, one.instance, k)][:40]
            children += [child_id(one.instance, key) for key in keys]
            large = ChildRequest(workflow="wf", input=Raw(b'{"x":%s}' % VALUE))
            for key in keys:
                await one.publish(one.record(Parked, key=key, kind="child", child=large))
        for one in held:
            await fill(peer, one)
        async with running(settings):
            for child in children:
                await peer.until_status(child, "queued", within=20)
        await peer.is_sound()


def _crosses(peer: Peer, parent: str, key: str) -> bool:
    return peer.partition(parent) != peer.partition(child_id(parent, key))
