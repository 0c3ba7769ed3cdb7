"""Each part of a platform is killed with SIGKILL, at a random moment, while 100 workflows of 50 steps run.

All of them complete, every step has exactly one result, the log is whole, and folding it again gives the projections.
"""

import asyncio
import dataclasses
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from runtara.cli.children import Part
from runtara.cli.parts import connect
from runtara.compose.embedded import EmbeddedServers
from runtara.engine.setup import create_deployment
from runtara.infra.postgres import open_pool
from runtara.infra.settings import Settings
from runtara.projections.audit import replay, verify
from runtara.sdk.client import Client
from tests.support.polling import eventually
from tests.support.servers import data_folder

WORKFLOWS, STEPS = 100, 50
FLOWS = str(Path(__file__).with_name("flows.py"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def worker_of(pool: Part) -> int:
    """The worker process of a supervisor."""
    children = Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()
    return int(children[0])


@pytest.mark.parametrize("victim", ["worker", "engine", "NATS", "Postgres"])
async def test_whatever_is_killed_everything_completes_once(
    victim: str, record_property: Callable[[str, object], None]
) -> None:
    moment = random.uniform(0.2, 0.6)
    record_property("killed when this part of the steps was recorded", moment)
    with data_folder() as folder:
        async with EmbeddedServers(folder / "data") as servers:
            settings = Settings(
                nats_url=servers.nats_url, nats_user=servers.nats_user, nats_password=servers.nats_password,
                database_url=servers.database_url, log_level="error", journal_max_bytes=64 * 1024 * 1024,
            )  # fmt: skip
            async with await connect(settings) as bus:
                await create_deployment(settings, bus)
            async with Part(settings, ["engine"]) as engine, Part(settings, ["worker", FLOWS]) as pool:
                await run_and_kill(settings, servers, engine, pool, victim, moment)
            await check_log(settings)


async def run_and_kill(
    settings: Settings, servers: EmbeddedServers, engine: Part, pool: Part, victim: str, moment: float
) -> None:
    database = await open_pool(settings.require_database_url(), settings.deployment, size=1)
    async with Client(dataclasses.replace(settings)) as client:
        handles = [await client.start("adds", {"steps": STEPS}, id=f"adds-{n}") for n in range(WORKFLOWS)]

        async def recorded() -> bool:
            count = await database.fetchval("SELECT count(*) FROM events WHERE type = 'CheckpointSaved'")
            return bool(count >= moment * WORKFLOWS * STEPS)

        await eventually(recorded, within=60)
        await database.close()
        kill(servers, engine, pool, victim)
        results = await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
    assert results == [sum(range(STEPS))] * WORKFLOWS


def kill(servers: EmbeddedServers, engine: Part, pool: Part, victim: str) -> None:
    match victim:
        case "worker":
            os.kill(worker_of(pool), signal.SIGKILL)
        case "engine":
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
        case "NATS":
            servers.nats.kill()
        case _:
            servers.postgres.kill()


async def check_log(settings: Settings) -> None:
    pool = await open_pool(settings.require_database_url(), settings.deployment, size=1)
    async with pool, pool.acquire() as connection:
        rows = await connection.fetch("SELECT instance, key FROM events WHERE type = 'CheckpointSaved'")
        counts = Counter((row["instance"], row["key"]) for row in rows)
        assert len(counts) == WORKFLOWS * STEPS
        assert set(counts.values()) == {1}
        verified, replayed = await verify(connection), await replay(connection)
    assert verified.findings == []
    assert replayed.findings == []
