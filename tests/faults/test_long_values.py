"""`kill -9` of anything while values go aside: nothing is named that is not there, and nothing wrong comes back."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bench.measure import rss_mb
from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.limits import MAX_STATE_BYTES
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.peer import connect_peer
from tests.support.polling import eventually

from . import faulty, long_values
from .test_kill_anything import kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("long_values.py"))
WORKFLOWS, STEPS, SIZE = 10, 10, 150_000
LONGEST = MAX_STATE_BYTES - 1_000


async def test_a_worker_killed_between_storing_a_value_and_naming_it_leaves_nothing_that_is_used(
    site: Settings, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIES_IN", str(tmp_path))
    await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    handle = await client.start(long_values.dies_between, folder=str(tmp_path), size=SIZE, id="i-1")
    assert await handle.result(timeout=60) == [f"{n} {SIZE}" for n in range(3)]
    stored = (tmp_path / "died").read_text()
    assert faulty.trace(str(tmp_path)) == ["0", "0", "1", "2"]  # at least once: its record was never sent
    async with connect_peer(site) as peer:
        keys = [event["key"] for event in await peer.events("i-1") if event["type"] == "CheckpointSaved"]
        assert keys == [f"fatal/{n}" for n in range(3)]
        hashes = {row["hash"] for row in await peer.pool.fetch("SELECT hash FROM blobs")}
        assert (stored in hashes, len(hashes)) == (True, 3)  # the same value, stored twice, is there once
        await peer.is_sound()


async def test_an_engine_killed_in_the_middle_of_a_long_value_finds_it_whole_in_the_end(
    site: Settings, stack: AsyncExitStack
) -> None:
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    async with connect_peer(site) as peer:
        handle = await client.start(long_values.one_long, size=LONGEST, id="i-1")

        async def is_under_way() -> bool:
            return bool(await peer.pool.fetchval("SELECT count(*) BETWEEN 5 AND 60 FROM blob_parts"))

        await eventually(is_under_way, within=30)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert await peer.pool.fetchval("SELECT count(*) FROM blobs") == 0
        assert await handle.result(timeout=80) == str(LONGEST)
        assert (await handle.get()).restarts == 0
        assert await peer.pool.fetchval("SELECT count(*) FROM blob_uploads") == 0
        assert await peer.pool.fetchval("SELECT count(*) FROM blob_parts") == 64
        await peer.is_sound()


async def test_long_values_pass_through_an_engine_that_stays_small(site: Settings, stack: AsyncExitStack) -> None:
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    await (await client.start(long_values.one_long, size=SIZE)).result(timeout=30)
    assert engine.pid is not None
    before = rss_mb(engine.pid)
    handles = [await client.start(long_values.one_long, size=LONGEST) for _ in range(4)]
    await asyncio.gather(*(handle.result(timeout=100) for handle in handles))
    assert rss_mb(engine.pid) - before < 100  # of 256 MiB that were stored


@pytest.mark.parametrize("victim", ["worker", "engine", "nats", "postgres"])
async def test_all_long_values_are_right_whatever_is_killed(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    handles = [
        await client.start(
            long_values.long_steps, folder=str(tmp_path), number=number, count=STEPS, size=SIZE, id=f"batch-{number}"
        )
        for number in range(WORKFLOWS)
    ]
    moment = chance.randrange(1, WORKFLOWS * STEPS * 9 // 10)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    results = await asyncio.gather(*(handle.result(timeout=80) for handle in handles))
    assert results == [[f"{number}-{n} {SIZE}" for n in range(STEPS)] for number in range(WORKFLOWS)]
    async with connect_peer(site) as peer:
        assert await peer.pool.fetchval("SELECT count(*) FROM blob_uses") == WORKFLOWS * STEPS
        await peer.is_sound()
