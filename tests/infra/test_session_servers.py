"""The fixtures themselves."""

import asyncpg

from runtara.infra.settings import Settings
from tests.support.platform import connect


async def test_each_test_has_a_deployment_of_its_own_on_real_servers(settings: Settings) -> None:
    async with await connect(settings) as bus:
        jetstream = bus.nats.jetstream()
        await jetstream.add_stream(name=f"{settings.deployment.upper()}-X", subjects=[settings.deployment])
        ack = await jetstream.publish(settings.deployment, b"x")
    database = await asyncpg.connect(settings.require_database_url())
    durable = [await database.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    await database.close()

    assert ack.seq == 1
    assert durable == ["on", "on", "on"]
