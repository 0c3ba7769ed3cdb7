"""Creating a deployment: `runtara migrate`, and the first `dev`. Nothing else creates a stream."""

import secrets
import time

import asyncpg

from runtara.infra.bus import Bus
from runtara.infra.login import tls_of
from runtara.infra.logs import logger
from runtara.infra.postgres import migrate, open_pool
from runtara.infra.settings import Settings
from runtara.protocol.chain import GENESIS
from runtara.protocol.errors import JournalMismatch
from runtara.protocol.subjects import Subjects

from .nats_server import check_server
from .streams import StreamConfig, check_config, create_stream, journal_config, run_config, stream_info

log = logger("setup")

NEW_PARTITION = """
INSERT INTO partitions (id, stream_created, cursor, clock, head, head_hash, lease_until)
VALUES ($1, $2, 0, 0, 0, $3, now() - interval '1 second') ON CONFLICT DO NOTHING
"""


async def create_deployment(settings: Settings, bus: Bus) -> str:
    """Bring schema, deployment identity and streams into being, as far as they are not there. Returns the identity.

    Raises `JournalMismatch` where a stream is missing that the database has read from, or belongs to somebody else;
    `UnfitServer`, with nothing done, where NATS is too old or not strict.
    """
    await check_server(bus)
    database_url, tls = settings.require_database_url(), tls_of(settings)
    await migrate(database_url, settings.deployment, tls=tls)
    async with (
        await open_pool(database_url, settings.deployment, size=2, tls=tls) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"runtara {settings.deployment}")
        deployment_id, partitions = await _identity(connection, settings)
        await _streams(connection, bus, settings, deployment_id, partitions)
    return deployment_id


async def _identity(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", settings: Settings
) -> tuple[str, int]:
    row = await connection.fetchrow("SELECT id, partitions FROM deployment")
    if row is not None:
        return row["id"], row["partitions"]
    deployment_id = secrets.token_hex(16)
    await connection.execute(
        "INSERT INTO deployment (id, name, partitions, created_at) VALUES ($1, $2, $3, $4)",
        deployment_id, settings.deployment, settings.partitions, time.time_ns() // 1_000,
    )  # fmt: skip
    return deployment_id, settings.partitions


async def _streams(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
    bus: Bus,
    settings: Settings,
    deployment_id: str,
    partitions: int,
) -> None:
    subjects = Subjects(settings.deployment)
    known = {row["id"]: row["cursor"] for row in await connection.fetch("SELECT id, cursor FROM partitions")}
    for partition in range(partitions):
        config = journal_config(
            subjects, partition, deployment_id=deployment_id, max_bytes=settings.journal_max_bytes,
            replicas=settings.replicas,
        )  # fmt: skip
        created = await _ensure(bus, config, may_create=partition not in known)
        await connection.execute(NEW_PARTITION, partition, created, GENESIS)
    await _ensure(bus, run_config(subjects, deployment_id=deployment_id, replicas=settings.replicas), may_create=True)


async def _ensure(bus: Bus, config: StreamConfig, *, may_create: bool) -> str:
    info = await stream_info(bus, config.name)
    if info is None:
        if not may_create:
            raise JournalMismatch(stream=config.name, reason="it does not exist any more")
        await create_stream(bus, config)
        log.info("stream_created", stream=config.name)
        info = await stream_info(bus, config.name)
        assert info is not None
    check_config(info, config)
    return info.created
