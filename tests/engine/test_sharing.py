"""Engines share the partitions: who has most gives to who has fewest, between two commits, and then nothing moves."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.engine import dispatch, sharing
from runtara.engine.service import Engine
from runtara.engine.sharing import gives
from runtara.infra.settings import Settings
from runtara.protocol.limits import OWNER_LEASE_SECONDS
from runtara.protocol.records import Start
from tests.support.peer import Peer
from tests.support.platform import running
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

# the rule


@given(st.lists(st.integers(0, 12), min_size=2, max_size=7))
def test_one_engine_at_a_time_gives_until_shares_differ_by_one_and_then_none(shares: list[int]) -> None:
    owned = {f"e{n}": share for n, share in enumerate(shares)}
    for _ in range(sum(shares) + 1):
        giving = [
            engine
            for engine, share in owned.items()
            if gives(engine, share, {other: n for other, n in owned.items() if other != engine})
        ]
        if max(owned.values()) - min(owned.values()) <= 1:
            assert giving == []
            return
        (giver,) = giving
        owned[giver] -= 1
        owned[min(owned, key=lambda engine: owned[engine])] += 1
    raise AssertionError(f"{shares} did not come to rest: {owned}")


# engines on real servers


@pytest.fixture
def partitions() -> int:
    return 4


@pytest.fixture(autouse=True)
def quick_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "ANNOUNCE_SECONDS", 0.2)
    monkeypatch.setattr(sharing, "PATIENCE_SECONDS", 0.4)
    monkeypatch.setattr(sharing, "GIVE_SECONDS", 1.2)
    monkeypatch.setattr(sharing, "UNWANTED_SECONDS", 3.0)  # on a busy machine a taker may come late


async def shares(peer: Peer) -> list[int]:
    """What the engines that live say they own; [] while a partition is owned by nobody."""
    owned = await peer.pool.fetch("SELECT owned FROM engines WHERE lease_until > now() ORDER BY owned DESC")
    free = await peer.pool.fetchval("SELECT count(*) FROM partitions WHERE owner IS NULL OR lease_until < now()")
    return [] if free else [row["owned"] for row in owned]


async def until_shares(peer: Peer, *expected: int, within: float = 40.0) -> None:
    async def are_so() -> bool:
        found = await shares(peer)
        assert found == list(expected)
        return True

    await eventually(are_so, within=within)


async def owners(peer: Peer) -> list[str]:
    return [row["owner"] for row in await peer.pool.fetch("SELECT owner FROM partitions ORDER BY id")]


class Traffic:
    """Instances that are started, claimed, recorded and completed one after the other; asked once, never again."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.done = 0
        self.slowest = 0.0

    async def run(self, lane: int) -> None:
        while True:
            began = time.monotonic()
            held = await self._peer.started(f"lane-{lane}-{self.done}")
            assert (await held.commit(held.step("a"), held.step("b"))).rejected == []
            await held.complete()
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.done += 1

    async def goes_on(self) -> None:
        before = self.done
        await eventually(lambda: self.done > before + 20)


@asynccontextmanager
async def traffic(peer: Peer) -> AsyncIterator[Traffic]:
    """Work in all partitions meanwhile. Afterwards everything is there once, in whole chains."""
    await peer.register("wf")
    moving = Traffic(peer)
    lanes = [asyncio.create_task(moving.run(lane)) for lane in range(6)]
    try:
        yield moving
        await moving.goes_on()
    finally:
        for lane in lanes:
            lane.cancel()
        outcomes = await asyncio.gather(*lanes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * len(lanes), outcomes
    counts = await peer.pool.fetch(
        "SELECT array_agg(type ORDER BY version) AS types FROM events WHERE instance IN"
        " (SELECT instance FROM instances WHERE status = 'completed') GROUP BY instance"
    )
    whole = ["InstanceCreated", "InstanceQueued", "AttemptStarted", *["CheckpointSaved"] * 2, "InstanceCompleted"]
    assert [row["types"] for row in counts if row["types"] != whole] == []
    assert len(counts) >= moving.done
    await peer.is_sound()


async def test_shares_converge_while_workflows_run_on_and_no_partition_stands_still(
    deployed: Settings, peer: Peer
) -> None:
    async with running(deployed):
        await until_shares(peer, 4)
        async with traffic(peer) as work:
            async with running(deployed):
                await until_shares(peer, 2, 2)
                async with running(deployed):
                    await until_shares(peer, 2, 1, 1)
                    await work.goes_on()
                await until_shares(peer, 2, 2)
            await until_shares(peer, 4)
        assert work.slowest < OWNER_LEASE_SECONDS / 2  # a partition that nobody gave back would wait for its lease


async def test_what_is_shared_evenly_stays_where_it_is(deployed: Settings, peer: Peer) -> None:
    async with running(deployed), running(deployed), running(deployed):
        await until_shares(peer, 2, 1, 1)
        before = await owners(peer)
        later = "SELECT min(lease_until) > $1::timestamptz + interval '4 s' FROM engines"
        said = await peer.pool.fetchval("SELECT max(lease_until) FROM engines")

        async def have_all_looked_many_times() -> bool:
            return bool(await peer.pool.fetchval(later, said))

        await eventually(have_all_looked_many_times)
        assert await owners(peer) == before


async def test_an_engine_that_ends_leaves_its_partitions_to_the_others_at_once(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        leaving = Engine(deployed)
        async with leaving:
            await until_shares(peer, 2, 2)
        assert await peer.pool.fetchval("SELECT count(*) FROM engines") == 1
        await until_shares(peer, 4, within=OWNER_LEASE_SECONDS / 2)


async def test_an_engine_gives_its_partitions_back_with_all_said_that_was_decided(
    deployed: Settings, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run requests of its last commits would lack until another engine sweeps."""
    monkeypatch.setattr(dispatch, "MAX_IN_FLIGHT", 1)  # so that they take longer than the commits
    starts = [Start(instance=f"i-{n}", id=f"s-{n}", workflow="wf") for n in range(2_000)]
    async with running(deployed):
        await peer.register("wf")
        last = await peer.say(*[start for start in starts if peer.partition(start.instance) == 0][:400])
        await peer.folded(last)
    assert len(await peer.waiting_runs()) == 400


async def test_a_partition_that_nobody_takes_is_taken_back_and_not_given_again_soon(
    deployed: Settings, peer: Peer
) -> None:
    """An engine that says it lives and does nothing costs a moment, never a partition."""
    async with running(deployed):
        await until_shares(peer, 4)
        before = await owners(peer)
        await peer.pool.execute("INSERT INTO engines VALUES ('idle', 0, now() + interval '1 hour')")

        async def one_is_free() -> bool:
            return None in await owners(peer)

        await eventually(one_is_free)
        await until_shares(peer, 4, 0, within=sharing.PATIENCE_SECONDS + 3)
        after = await owners(peer)
        assert len(set(after) - set(before)) == 1
        await peer.register("wf")
        for n in range(8):
            assert (await peer.start(f"i-{n}")).error is None
        assert await owners(peer) == after


async def test_an_engine_that_is_cut_off_from_nats_loses_its_partitions_to_one_that_is_not(
    deployed: Settings, peer: Peer
) -> None:
    async with proxy_of(deployed.require_nats_url()) as proxy:
        async with running(dataclasses.replace(deployed, nats_url=proxy.url)):
            await until_shares(peer, 4)
            async with running(deployed):
                await until_shares(peer, 2, 2)
                await proxy.cut()
                await until_shares(peer, 4, within=OWNER_LEASE_SECONDS + 2)
                await peer.register("wf")
                for n in range(8):
                    assert (await peer.start(f"i-{n}")).error is None
                await proxy.mend()
                await until_shares(peer, 2, 2)
        await peer.is_sound()
