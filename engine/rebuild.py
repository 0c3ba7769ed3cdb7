"""`runtara audit rebuild`: `instances`, `timers` and `blob_uses` made again from the log, where they differ from it.

What differs is found by folding the log as of one moment, which disturbs nobody. Only a partition in which something
differs is stopped: it gets an owner that no engine is, so that none of them commits, or goes on with rows that it had
read before they were right; they take over again, with an empty cache, as soon as it is released. Meanwhile workflows
go on recording into the journal, as when an engine is down.

Invariants: every transaction takes the row of the partition before it reads, so no commit of an engine's lies within
it, and what it reads of the log is all there is; what is written is what the fold would have written. `dispatched` is
evidence and not derived: it stays, and is 0 in rows that were missing, so that the sweeper sends their requests again.
An instance whose own chain is broken is left as it is.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Final

import asyncpg
import msgspec

from runtara.projections.chains import Links
from runtara.projections.instances import columns
from runtara.projections.refold import Id, Progress, Refolded, drift, refolded
from runtara.projections.verdict import MAX_FINDINGS, PAGE, Connection, Finding
from runtara.protocol.ids import partition_of
from runtara.protocol.limits import OWNER_LEASE_SECONDS

from . import log as event_log
from . import sql

CHUNK: Final = 200  # instances a transaction
TRIES: Final = 5  # of a transaction that met another one

_EVENTS: Final = """
SELECT e.* FROM events e JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
ORDER BY e.tenant, e.instance, e.version
"""
_DROP_TIMERS: Final = """
DELETE FROM timers USING unnest($1::text[], $2::text[]) AS gone (tenant, instance)
WHERE timers.tenant = gone.tenant AND timers.instance = gone.instance
"""
_DROP_USES: Final = """
DELETE FROM blob_uses USING unnest($1::text[], $2::text[]) AS gone (tenant, instance)
WHERE blob_uses.tenant = gone.tenant AND blob_uses.instance = gone.instance
"""
_DROP_INSTANCES: Final = """
DELETE FROM instances USING unnest($1::text[], $2::text[]) AS gone (tenant, instance)
WHERE instances.tenant = gone.tenant AND instances.instance = gone.instance
"""


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """`differed`: what the log says was written for them, but for those in `findings`."""

    events: int
    instances: int
    differed: int
    findings: list[Finding]

    @property
    def is_clean(self) -> bool:
        return not self.findings


async def rebuild(connection: "Connection[asyncpg.Record]", progress: Progress = lambda count: None) -> Rebuilt:
    """Make the projections say what the log says. Engines may run."""
    events = instances = 0

    def count(some: int) -> None:
        nonlocal events
        events += some
        progress(some)

    partitions = await connection.fetchval("SELECT count(*) FROM partitions")
    differing: dict[int, list[Id]] = {}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for some, found in drift(connection, count):
            instances += some
            for finding in found:
                id = (finding.tenant or "", finding.instance or "")
                differing.setdefault(partition_of(*id, partitions), []).append(id)
    findings: list[Finding] = []
    for partition, ids in differing.items():
        findings += await _repair(connection, partition, ids)
    differed = sum(map(len, differing.values()))
    return Rebuilt(events=events, instances=instances, differed=differed, findings=findings[:MAX_FINDINGS])


async def _repair(connection: "Connection[asyncpg.Record]", partition: int, ids: list[Id]) -> list[Finding]:
    token = f"rebuild-{secrets.token_hex(12)}"
    findings: list[Finding] = []
    try:
        for start in range(0, len(ids), CHUNK):
            findings += await _repair_chunk(connection, partition, token, ids[start : start + CHUNK])
    finally:
        await event_log.release(connection, partition, token)
    return findings


async def _repair_chunk(
    connection: "Connection[asyncpg.Record]", partition: int, token: str, ids: Sequence[Id]
) -> list[Finding]:
    for attempt in range(1, TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(sql.ONE_AT_A_TIME)
                await connection.execute(sql.SEIZE, partition, token, float(OWNER_LEASE_SECONDS))
                return await _write(connection, ids)
        except asyncpg.DeadlockDetectedError:  # an engine was just writing which requests it had sent
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


async def _write(connection: "Connection[asyncpg.Record]", ids: Sequence[Id]) -> list[Finding]:
    links = Links()
    gone = set(ids)
    async for done in refolded(_pages(connection, ids, links)):
        gone -= {one.id for one in done}
        for one in done:
            if one.finding is not None:
                links.broken.setdefault(one.id, one.finding)
        sound = [one for one in done if one.row is not None and one.id not in links.broken]
        if sound:
            await _replace(connection, sound)
    if gone:  # the log does not know them
        await connection.execute(_DROP_TIMERS, *_transposed(gone))
        await connection.execute(_DROP_USES, *_transposed(gone))
        await connection.execute(_DROP_INSTANCES, *_transposed(gone))
    return list(links.broken.values())


async def _replace(connection: "Connection[asyncpg.Record]", sound: list[Refolded]) -> None:
    rows = [one.row for one in sound if one.row is not None]
    ids = _transposed([one.id for one in sound])
    await connection.execute(sql.REPLACE_INSTANCES, *map(list, zip(*map(columns, rows), strict=True)))
    await connection.execute(_DROP_TIMERS, *ids)
    await connection.execute(_DROP_USES, *ids)
    timers = [
        (row.tenant, row.instance, version, row.partition, timer.due_us)
        for row in rows
        for version, timer in row.state.timers.items()
    ]
    if timers:
        await connection.execute(sql.ADD_TIMERS, *map(list, zip(*timers, strict=True)))
    uses = [(*one.id, hash) for one in sound for hash in sorted(one.uses)]
    if uses:
        await connection.execute(sql.USE_BLOBS, *map(list, zip(*uses, strict=True)))


def _transposed(ids: Sequence[Id] | set[Id]) -> list[list[str]]:
    return [list(part) for part in zip(*ids, strict=True)]


async def _pages(
    connection: "Connection[asyncpg.Record]", ids: Sequence[Id], links: Links
) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(_EVENTS, *_transposed(ids))
    while page := await cursor.fetch(PAGE):
        for record in page:
            links.step(record)
        yield page
