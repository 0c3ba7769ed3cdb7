"""The fixtures themselves."""

import asyncpg
import nats

from runtara.infra.settings import Settings


async def test_each_test_has_a_deployment_of_its_own_on_real_servers(settings: Settings) -> None:
    connection = await nats.connect(
        settings.require_nats_url(), user=settings.nats_user, password=settings.nats_password, allow_reconnect=False
    )
    await connection.jetstream().add_stream(name=f"{settings.deployment.upper()}-X", subjects=[settings.deployment])
    ack = await connection.jetstream().publish(settings.deployment, b"x")
    await connection.close()
    database = await asyncpg.connect(settings.require_database_url())
    durable = [await database.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    await database.close()

    assert ack.seq == 1
    assert durable == ["on", "on", "on"]
