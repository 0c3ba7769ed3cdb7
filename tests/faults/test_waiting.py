"""`kill -9` of anything while instances sleep, and the races between what wakes an instance and what it does itself."""

import asyncio
import contextlib
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.errors import IllegalTransition
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually

from . import faulty
from .test_kill_anything import kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
SLEEPERS = 40
ROUNDS = 6
RACES = 60


async def slept_well(peer: Peer) -> None:
    """Each sleep began once and ended once, not before its deadline."""
    due: dict[tuple[str, str], int] = {}
    ended: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in await peer.pool.fetch('SELECT * FROM events ORDER BY partition, "offset"'):
        wait = (event["instance"], event["key"])
        if event["type"] == "SleepStarted":
            assert wait not in due, f"{wait} began twice"
            due[wait] = msgspec.json.decode(event["data"])["due_us"]
        elif event["type"] == "WaitResolved":
            ended[wait].append(event["recorded_at"])
    assert all(len(times) == 1 and times[0] >= due[wait] for wait, times in ended.items())
    await peer.is_sound()


@pytest.mark.parametrize("victim", ["worker", "engine", "nats", "postgres"])
async def test_sleepers_wake_and_complete_whatever_is_killed(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    handles = [
        await client.start(flow, folder=str(tmp_path), number=number, rounds=ROUNDS, id=f"{flow.name}-{number}")
        for flow in (faulty.naps, faulty.dozes)
        for number in range(SLEEPERS)
    ]
    moment = chance.randrange(2 * SLEEPERS * ROUNDS * 3 // 4)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    assert await asyncio.gather(*(handle.result(timeout=80) for handle in handles)) == [ROUNDS] * 2 * SLEEPERS
    async with connect_peer(site) as peer:
        await slept_well(peer)


@pytest.mark.parametrize("victim", ["worker", "engine", "nats"])
async def test_tries_are_counted_whatever_is_killed_between_them(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    flows = (faulty.fails_in_memory, faulty.fails_out_of_memory)
    handles = [
        await client.start(flow, folder=str(tmp_path), number=number, id=f"{flow.name}-{number}")
        for flow in flows
        for number in range(SLEEPERS)
    ]
    moment = chance.randrange(SLEEPERS, len(handles) * 4)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    ends = await asyncio.gather(*(handle.result(timeout=80) for handle in handles), return_exceptions=True)
    assert all("failed after 5 attempt" in str(end) for end in ends), ends
    # a try that was not recorded does not count; nor does that of a first attempt whose delivery NATS forgot
    under_way = 0 if victim == "engine" else len(handles)
    assert 0 <= len(faulty.trace(str(tmp_path))) - 5 * len(handles) <= under_way
    async with connect_peer(site) as peer:
        for handle in handles:
            failures = [e for e in await peer.events(handle.id) if e["type"] == "StepFailed"]
            assert [msgspec.json.decode(failure["data"])["n"] for failure in failures] == [1, 2, 3, 4, 5]
        await peer.is_sound()


@pytest.mark.parametrize("victim", ["worker", "engine"])
async def test_parents_are_joined_by_their_children_whatever_is_killed(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    handles = [await client.start(faulty.tree, folder=str(tmp_path), number=number, count=20) for number in range(10)]
    moment = chance.randrange(150)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    results = await asyncio.gather(*(handle.result(timeout=80) for handle in handles))
    assert results == [sum(number * 1_000 + n for n in range(20)) for number in range(10)]
    async with connect_peer(site) as peer:
        assert await peer.pool.fetchval("SELECT count(*) FROM instances WHERE workflow = 'leaf'") == 200
        await peer.is_sound()


@pytest.fixture
async def client(settings: Settings, stack: AsyncExitStack) -> Client:
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    await stack.enter_async_context(Pool(settings, [FLOWS]))
    return await stack.enter_async_context(Client(settings))


async def test_no_signal_is_lost_or_overtaken_while_instances_come_and_go(
    client: Client, settings: Settings, chance: random.Random
) -> None:
    async def one(number: int) -> list[object]:
        handle = await client.start(faulty.collect, count=4, id=f"i-{number}")
        for n in range(4):
            await asyncio.sleep(chance.random() * 0.05)  # it leaves some ten milliseconds after it waits
            await handle.signal("item", n)
        return await handle.result(timeout=60)

    assert await asyncio.gather(*(one(number) for number in range(RACES))) == [[0, 1, 2, 3]] * RACES
    async with connect_peer(settings) as peer:
        assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") == 0
        await peer.is_sound()


async def test_a_sleep_that_ends_while_its_instance_is_paused_or_resumed_wakes_it(
    client: Client, settings: Settings, chance: random.Random, tmp_path: Path
) -> None:
    async def one(number: int) -> int:
        handle = await client.start(faulty.naps, folder=str(tmp_path), number=number, rounds=3)
        for _ in range(3):
            await asyncio.sleep(chance.random() * 0.2)
            try:
                await handle.pause()
                await asyncio.sleep(chance.random() * 0.2)
                await handle.resume()
            except IllegalTransition:  # it has ended
                break
        return await handle.result(timeout=60)

    assert await asyncio.gather(*(one(number) for number in range(RACES))) == [3] * RACES
    async with connect_peer(settings) as peer:
        await slept_well(peer)


async def test_a_signal_and_its_time_out_at_once_have_one_outcome(
    client: Client, settings: Settings, chance: random.Random
) -> None:
    async def one(number: int) -> str:
        handle = await client.start(faulty.approval, seconds=0.2, id=f"i-{number}")
        await asyncio.sleep(0.19 + chance.random() * 0.02)
        with contextlib.suppress(IllegalTransition):  # it has ended
            await handle.signal("approved", "yes")
        return await handle.result(timeout=60)

    results = await asyncio.gather(*(one(number) for number in range(RACES)))
    async with connect_peer(settings) as peer:
        for number, result in enumerate(results):
            (resolved,) = [e for e in await peer.events(f"i-{number}") if e["type"] == "WaitResolved"]
            outcome = msgspec.json.decode(resolved["data"])["outcome"]
            assert (outcome, result) in (("signal", "yes"), ("timeout", "nobody"))
        await peer.is_sound()
