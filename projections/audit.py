"""`verify`: are the chains of the event log whole?

It walks each partition's events in offset order and checks what the writer promised: no gap in the offsets, no gap in
any instance's versions, every hash, the partition's head, that a key has one outcome, and that a fork's source, where
it is still in the log, is the one that it was forked from. Values that went aside are read, too: each is what its hash
says. It names the first event that breaks a promise. Whoever can write Postgres can rewrite a whole chain, so a head
that was kept elsewhere can be given: the log must still contain exactly what that head stands for.

It reads with cursors, in pages, and holds one small entry an instance, and one a value that went aside.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import asyncpg

from runtara.protocol.errors import BadInput

from .blobs import BlobId, damage
from .chains import Walk
from .verdict import MAX_FINDINGS, PAGE, Connection, Finding, Head, Heads, Verdict

_EVENTS: Final = 'SELECT * FROM events WHERE partition = $1 ORDER BY "offset"'
_RETIRED: Final = "SELECT first, hashes FROM retired_hashes WHERE partition = $1 ORDER BY first"
_RETIRED_EVENTS: Final = "SELECT coalesce(sum(version), 0) FROM retired WHERE partition = $1"
_SECOND_OUTCOMES: Final = """
SELECT tenant, instance, key, min("offset") AS "offset", min(version) AS version FROM (
    SELECT tenant, instance, key, "offset", version, row_number() OVER
        (PARTITION BY tenant, instance, generation, key ORDER BY version) AS n
    FROM (
        SELECT *, count(*) FILTER (WHERE type = 'InstanceContinued') OVER
            (PARTITION BY tenant, instance ORDER BY version) AS generation
        FROM events WHERE partition = $1 AND (
            type IN ('CheckpointSaved', 'CustomEvent', 'InstanceContinued') OR (type = 'MemoCopied' AND
                (data::text LIKE '{"type":"CheckpointSaved"%' OR data::text LIKE '{"type":"CustomEvent"%'))
        )
    ) AS outcomes WHERE key IS NOT NULL
) AS numbered WHERE n > 1 GROUP BY tenant, instance, key ORDER BY "offset" LIMIT $2
"""
# Both may lie in any partitions. A source of which nothing is left was archived, or is missed by its partition's head.
_OTHER_SOURCES: Final = """
SELECT f."offset", f.tenant, f.instance, f.version, f.source, f.source_version, s.hash IS NULL AS is_gone
FROM (
    SELECT *, data->>'source' AS source, (data->>'version')::int AS source_version, data->>'source_hash' AS source_hash
    FROM events WHERE partition = $1 AND version = 2 AND type = 'InstanceForked'
) AS f LEFT JOIN events s ON (s.tenant, s.instance, s.version) = (f.tenant, f.source, f.source_version)
WHERE f.source_hash IS NOT NULL AND encode(s.hash, 'hex') IS DISTINCT FROM f.source_hash
    AND EXISTS (SELECT FROM events WHERE (tenant, instance) = (f.tenant, f.source))
ORDER BY f."offset" LIMIT $2
"""
_PARTITIONS: Final = "SELECT id, head, head_hash FROM partitions ORDER BY id"

Progress = Callable[[int], None]


def silent(count: int) -> None:
    """No progress is shown."""


async def verify(
    connection: "Connection[asyncpg.Record]", progress: Progress = silent, *, against: Heads | None = None
) -> Verdict:
    """Check the chains of every partition, as of one moment (a repeatable-read transaction).

    `against`: heads that were kept elsewhere. Raises `BadInput` if they are of another deployment.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        deployment = await connection.fetchval("SELECT id FROM deployment") or ""
        kept = _kept(against, deployment)
        walks = [
            await _walked(connection, row, kept.pop(row["id"], None), progress)
            for row in await connection.fetch(_PARTITIONS)
        ]
        damaged = await _damaged(connection, walks)
    lost = [Finding(problem="the partition is gone", partition=partition) for partition in kept]
    return Verdict(
        events=sum(walk.events for walk in walks),
        instances=sum(len(walk.chains) for walk in walks),
        findings=[*(finding for walk in walks for finding in walk.findings), *damaged, *lost][:MAX_FINDINGS],
        retired=sum(walk.retired for walk in walks),
        deployment=deployment,
        heads=[Head(partition=walk.partition, offset=walk.offset, hash=walk.head.hex()) for walk in walks],
    )


async def heads_now(connection: "Connection[asyncpg.Record]") -> Heads:
    """The heads as Postgres has them, unproved."""
    rows = await connection.fetch(_PARTITIONS)
    heads = [Head(partition=row["id"], offset=row["head"], hash=row["head_hash"].hex()) for row in rows]
    return Heads(deployment=await connection.fetchval("SELECT id FROM deployment") or "", heads=heads)


def _kept(against: Heads | None, deployment: str) -> dict[int, Head]:
    if against is None:
        return {}
    if against.deployment != deployment:
        raise BadInput(reason=f"the heads are those of deployment {against.deployment}, and this one is {deployment}")
    return {head.partition: head for head in against.heads}


async def _damaged(connection: "Connection[asyncpg.Record]", walks: list[Walk]) -> list[Finding]:
    """Each value once, with the first event that names it."""
    seen: set[BlobId] = set()
    findings: list[Finding] = []
    for walk in walks:
        for id, named in walk.named.items():
            problem = await damage(connection, *id) if id not in seen else None
            seen.add(id)
            if problem is not None and len(findings) < MAX_FINDINGS:
                findings.append(named.finding(id[1], problem))
    return findings


async def _walked(
    connection: "Connection[asyncpg.Record]", partition: asyncpg.Record, kept: Head | None, progress: Progress
) -> Walk:
    walk = Walk(partition["id"], kept)
    gaps = _Gaps(connection, partition["id"])
    await gaps.next()
    async for page in _pages(connection, partition["id"]):
        for event in page:
            if event["offset"] > walk.offset:
                await gaps.fill(walk, event["offset"])
            walk.step(event)
        progress(len(page))
    await gaps.fill(walk, None)
    retired = await connection.fetchval(_RETIRED_EVENTS, partition["id"])
    walk.finish(partition["head"], partition["head_hash"], int(retired))
    walk.second_outcomes(await connection.fetch(_SECOND_OUTCOMES, partition["id"], MAX_FINDINGS))
    walk.other_sources(await connection.fetch(_OTHER_SOURCES, partition["id"], MAX_FINDINGS))
    return walk


async def _pages(connection: "Connection[asyncpg.Record]", partition: int) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(_EVENTS, partition)
    while page := await cursor.fetch(PAGE):
        yield page


class _Gaps:
    """The runs of retired events, in order, one at a time."""

    def __init__(self, connection: "Connection[asyncpg.Record]", partition: int) -> None:
        self._runs = aiter(connection.cursor(_RETIRED, partition, prefetch=50))
        self._run: asyncpg.Record | None = None

    async def next(self) -> None:
        self._run = await anext(self._runs, None)

    async def fill(self, walk: Walk, up_to: int | None) -> None:
        """Take `walk` over what was retired before offset `up_to`, or to the end."""
        while (run := self._run) is not None and (up_to is None or run["first"] < up_to):
            if run["first"] < walk.offset:
                walk.overlaps(run["first"])
            else:
                walk.up_to(run["first"])
                walk.skip(run["hashes"])
            await self.next()
