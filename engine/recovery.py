"""Going on after a journal was lost: `runtara engine --accept-journal-loss`.

What the journal had acknowledged and nobody had folded is gone; somebody has to say that this is accepted. Then the
journal as it is now becomes ours, and is folded from its beginning: what the log has already changes nothing (command
ids are unique, reports of ended attempts are stale). Every resident instance gets a new attempt, so that nothing a
worker still sends about its old one can be taken for the continuation of what was lost.
"""

import asyncio
import secrets
import time
from typing import Final

import asyncpg

from runtara.infra.bus import Bus
from runtara.infra.login import tls_of
from runtara.infra.logs import logger
from runtara.infra.postgres import open_pool
from runtara.infra.settings import Settings
from runtara.protocol.errors import JournalMismatch, PartitionLost
from runtara.protocol.limits import OWNER_LEASE_SECONDS
from runtara.protocol.records import Owner, WorkerLost
from runtara.protocol.subjects import Subjects

from . import log as event_log
from . import sql
from .fold import Fold
from .fold_values import Context
from .log import Ownership
from .reader import Frame
from .streams import Anchor, check_anchor, create_stream, journal_config, stream_info

log = logger("recovery")

LEASE_MARGIN_SECONDS: Final = 1.0
LOOK_AGAIN_SECONDS: Final = 0.2

_ADOPT: Final = "UPDATE partitions SET stream_created = $2 WHERE id = $1"

Connection = asyncpg.pool.PoolConnectionProxy


async def adopt_journals(settings: Settings, bus: Bus) -> list[int]:
    """Adopt each journal that is not what Postgres was built from; the partitions for which that was so.

    All partitions are taken over before anything is done, waiting for the leases of engines that have ended. Raises
    `PartitionLost`, with nothing done, while an engine holds one: stop the engines first.
    """
    token = secrets.token_hex(16)
    async with (
        await open_pool(settings.require_database_url(), settings.deployment, size=1, tls=tls_of(settings)) as pool,
        pool.acquire() as connection,
    ):
        deployment = await connection.fetchrow("SELECT id, partitions FROM deployment")
        if deployment is None:
            return []
        partitions = range(deployment["partitions"])
        try:
            held = [await _take_over(connection, partition, token) for partition in partitions]
            lost = [ownership for ownership in held if await _is_lost(settings, bus, ownership)]
            for ownership in lost:
                await _adopt(connection, settings, bus, ownership, deployment["id"], len(partitions))
        finally:
            for partition in partitions:
                await event_log.release(connection, partition, token)
    return [ownership.partition for ownership in lost]


async def _take_over(connection: "Connection[asyncpg.Record]", partition: int, token: str) -> Ownership:
    deadline = time.monotonic() + OWNER_LEASE_SECONDS + LEASE_MARGIN_SECONDS
    while True:
        ownership = await event_log.take_over(connection, partition, token)
        if ownership is not None:
            return ownership
        if time.monotonic() > deadline:
            raise PartitionLost(partition=partition)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _is_lost(settings: Settings, bus: Bus, ownership: Ownership) -> bool:
    stream = Subjects(settings.deployment).journal_stream(ownership.partition)
    try:
        await check_anchor(bus, stream, ownership.anchor)
    except JournalMismatch as exc:
        log.warning("journal_loss_accepted", stream=stream, reason=str(exc))
        return True
    return False


async def _adopt(
    connection: "Connection[asyncpg.Record]",
    settings: Settings,
    bus: Bus,
    ownership: Ownership,
    deployment_id: str,
    partitions: int,
) -> None:
    subjects = Subjects(settings.deployment)
    if await stream_info(bus, subjects.journal_stream(ownership.partition)) is None:
        config = journal_config(
            subjects, ownership.partition, deployment_id=deployment_id, max_bytes=settings.journal_max_bytes,
            replicas=settings.replicas,
        )  # fmt: skip
        await create_stream(bus, config)
    await _begin_anew(connection, bus, ownership, subjects, partitions)


async def _begin_anew(
    connection: "Connection[asyncpg.Record]", bus: Bus, ownership: Ownership, subjects: Subjects, partitions: int
) -> None:
    """In one transaction: the new identity, and the end of every attempt that was resident."""
    partition, token = ownership.partition, ownership.token
    info = await stream_info(bus, subjects.journal_stream(partition))
    assert info is not None
    found = await connection.fetch(sql.RUNNING, partition)
    rows = await event_log.load_rows(connection, [(row["tenant"], row["instance"]) for row in found])
    lost = [
        WorkerLost(
            tenant=row.tenant, owner=token, instance=row.instance, attempt=row.state.attempt,
            worker=row.state.claim.worker if row.state.claim is not None else "", reason="journal lost",
        )
        for row in rows
    ]  # fmt: skip
    after = Anchor(created=info.created, cursor=max(info.state.first_seq - 1, 0), fingerprint=None)
    frame = Frame(
        subject=subjects.engine(partition),
        sequence=after.cursor,
        time_us=ownership.position.clock,
        data=b"",
        records=[Owner(instance="", token=token), *lost],
        rejections=[],
    )
    context = Context(partition=partition, partitions=partitions, subjects=subjects, repeated=frozenset(), workflows={})
    fold = Fold(ownership.position, {(row.tenant, row.instance): row for row in rows}, context)
    fold.frame(frame)
    async with connection.transaction():
        await connection.execute(_ADOPT, partition, info.created)
        await connection.execute(sql.OLD_OUTBOX, partition)
        await event_log.commit(connection, ownership, fold, before=ownership.anchor, after=after)
