"""`kill -9` of anything, at any moment, while a hundred workflows of fifty steps run."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.peer import connect_peer
from tests.support.polling import eventually

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
WORKFLOWS = 100
STEPS = 50
CRASHES_ARE_THE_WORKFLOWS = {"worker": 1, "engine": 0, "nats": 0, "postgres": 0}  # restarts that users may see


def kill(victim: str, servers: EmbeddedServers, engine: Part, pool: Pool) -> None:
    match victim:
        case "worker":
            os.kill(pool.children[0].pid, signal.SIGKILL)
        case "engine":
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
        case "nats":
            servers.nats.kill()
        case "postgres":
            servers.postgres.kill()


@pytest.mark.parametrize("victim", CRASHES_ARE_THE_WORKFLOWS)
async def test_all_complete_with_one_result_a_step_whatever_is_killed(
    victim: str,
    chance: random.Random,
    own_servers: EmbeddedServers,
    site: Settings,
    stack: AsyncExitStack,
    tmp_path: Path,
) -> None:
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    handles = [
        await client.start(faulty.steps, folder=str(tmp_path), number=number, count=STEPS, id=f"batch-{number}")
        for number in range(WORKFLOWS)
    ]
    moment = chance.randrange(WORKFLOWS * STEPS * 9 // 10)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)

    results = await asyncio.gather(*(result(handle) for handle in handles))
    assert results == [[number * 1_000 + n for n in range(STEPS)] for number in range(WORKFLOWS)]
    ran = faulty.trace(str(tmp_path))
    assert set(ran) == {f"{number} {n}" for number in range(WORKFLOWS) for n in range(STEPS)}
    # a step is at least once: what was under way in the killed process may have run twice, and only that
    assert len(ran) - len(set(ran)) <= (WORKFLOWS if victim == "worker" else 0)
    await proofs(site, restarts=CRASHES_ARE_THE_WORKFLOWS[victim])


async def result(handle: Handle[list[int]]) -> list[int]:
    return await handle.result(timeout=80)


async def proofs(settings: Settings, *, restarts: int) -> None:
    """What the log says: one result a step, whole chains, and the projections that are there."""
    async with connect_peer(settings) as peer:
        for number in range(WORKFLOWS):
            keys = [e["key"] for e in await peer.events(f"batch-{number}") if e["type"] == "CheckpointSaved"]
            assert len(keys) == len(set(keys)) == STEPS
        assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") <= restarts
        assert await peer.pool.fetchval("SELECT count(*) FROM instances WHERE status = 'completed'") == WORKFLOWS
        await peer.is_sound()
