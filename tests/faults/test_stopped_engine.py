"""An engine that stands still (SIGSTOP) loses its partition; what it does afterwards counts for nothing."""

import os
import signal

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

from .test_kills import FLOWS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def owner(settings: Settings) -> str | None:
    pool = await open_pool(settings.require_database_url(), settings.deployment, size=1)
    async with pool:
        token: str | None = await pool.fetchval("SELECT owner FROM partitions WHERE id = 0")
        return token


async def test_another_engine_takes_over_and_the_stopped_one_steps_down() -> None:
    with data_folder() as folder:
        async with EmbeddedServers(folder / "data") as servers:
            settings = Settings(
                nats_url=servers.nats_url, nats_user=servers.nats_user, nats_password=servers.nats_password,
                database_url=servers.database_url, log_level="error", journal_max_bytes=64 * 1024 * 1024,
            )  # fmt: skip
            async with await connect(settings) as bus:
                await create_deployment(settings, bus)
            async with Part(settings, ["engine"]) as first:
                stopped_token = await eventually(lambda: owner(settings))
                async with (
                    Part(settings, ["engine"]),
                    Part(settings, ["worker", FLOWS]),
                    Client(settings) as client,
                ):
                    running = await client.start("adds", {"steps": 400}, id="running")
                    assert first.pid is not None
                    os.kill(first.pid, signal.SIGSTOP)
                    try:

                        async def taken() -> bool:
                            return await owner(settings) not in (None, stopped_token)

                        await eventually(taken, within=30)
                        new_token = await owner(settings)
                    finally:
                        os.kill(first.pid, signal.SIGCONT)
                    assert await running.result(timeout=60) == sum(range(400))
                    after = await client.start("adds", {"steps": 5})
                    assert await after.result(timeout=60) == 10
                    assert await owner(settings) == new_token
            pool = await open_pool(settings.require_database_url(), settings.deployment, size=1)
            async with pool, pool.acquire() as connection:
                assert (await verify(connection)).findings == []
                assert (await replay(connection)).findings == []
