"""`runtara audit archive`: what has ended long ago leaves the database, after it is safe in a file.

A chunk of ended instances goes like this, in one transaction: their rows are locked, their events are written into a
gzip file as `audit export` writes them, the values that they name into files of their own beside it (`blob_files`),
all is synced, and only then are events and rows deleted; the values go a day later, unless others use them. What stays
is a row in `retired` (the instance, its last version, the head of its chain, the file and its SHA-256) and, in
`retired_hashes`, the hash of each event at its offset: the partition's head is a hash over all of them, so `verify`
still proves everything around them, and an event from the file can be proved against it.

Invariants: only instances are touched that have ended by their events' own account, and whose chains hold; engines
neither wait nor step aside, since they keep no ended instance in memory (a `retry` that meets an archive is decided
again, see `log.commit`). An id that was retired is never used again. A crash leaves a file too many at worst, never an
event too few.
"""

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from runtara.infra.postgres import Pool
from runtara.projections.archives import ArchiveFile, RetiredInstance
from runtara.projections.blob_files import write_blob
from runtara.projections.blobs import Damaged, packed_parts
from runtara.projections.chains import Links
from runtara.projections.instances import InstanceRow
from runtara.projections.refold import refolded
from runtara.projections.verdict import MAX_FINDINGS, PAGE, Connection, Finding
from runtara.protocol.errors import BadInput
from runtara.protocol.messages import Status

from . import sql

CHUNK_INSTANCES: Final = 500
CHUNK_EVENTS: Final = 50_000  # but for an instance that has more by itself

_SUMMARY: Final = """
SELECT tenant, status, count(*) AS instances, sum(version) AS events, min(updated_at) AS oldest FROM instances
WHERE status = ANY($1::text[]) AND updated_at < $2 AND ($3::text IS NULL OR tenant = $3)
GROUP BY tenant, status ORDER BY tenant, status
"""
_CANDIDATES: Final = """
SELECT partition, tenant, instance, version FROM instances
WHERE status = ANY($1::text[]) AND updated_at < $2 AND ($3::text IS NULL OR tenant = $3)
ORDER BY partition, updated_at
"""
_LOCK: Final = """
SELECT i.tenant, i.instance, i.partition, i.workflow, i.status, i.version, i.hash, i.created_at, i.updated_at
FROM instances i JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
WHERE i.status = ANY($3::text[]) AND i.updated_at < $4
ORDER BY i.tenant, i.instance FOR UPDATE OF i
"""
_USES: Final = """
SELECT u.tenant, u.instance, u.hash FROM blob_uses u
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
ORDER BY u.tenant, u.instance, u.hash
"""
_RETIRE_USES: Final = """
WITH gone AS (
    DELETE FROM blob_uses u USING unnest($1::text[], $2::text[]) AS wanted (tenant, instance)
    WHERE u.tenant = wanted.tenant AND u.instance = wanted.instance RETURNING u.tenant, u.hash
)
UPDATE blobs SET unused_since = $3 FROM gone WHERE blobs.tenant = gone.tenant AND blobs.hash = gone.hash
"""
_EVENTS: Final = """
SELECT e.* FROM events e JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
ORDER BY e.tenant, e.instance, e.version
"""
# A run: offsets without a gap between them.
_RETIRE_EVENTS: Final = """
WITH gone AS (
    DELETE FROM events USING unnest($1::text[], $2::text[]) AS wanted (tenant, instance)
    WHERE events.tenant = wanted.tenant AND events.instance = wanted.instance
    RETURNING events.partition, events."offset", events.hash
),
runs AS (
    SELECT partition, "offset", hash, "offset" - row_number() OVER (PARTITION BY partition ORDER BY "offset") AS run
    FROM gone
)
INSERT INTO retired_hashes (partition, first, hashes)
SELECT partition, min("offset"), string_agg(hash, ''::bytea ORDER BY "offset") FROM runs GROUP BY partition, run
"""
_RETIRE_INSTANCES: Final = """
WITH gone AS (
    DELETE FROM instances USING unnest($1::text[], $2::text[]) AS wanted (tenant, instance)
    WHERE instances.tenant = wanted.tenant AND instances.instance = wanted.instance RETURNING instances.*
)
INSERT INTO retired (tenant, instance, partition, workflow, status, version, hash, created_at, ended_at, retired_at,
    archive, archive_hash)
SELECT tenant, instance, partition, workflow, status, version, hash, created_at, updated_at, $3, $4, $5 FROM gone
"""
# Neighbouring runs become one, of about 4,096 events at most, so that what is left of an old log is a few rows.
_MERGE: Final = """
WITH runs AS (
    SELECT partition, first, hashes, first + octet_length(hashes) / 32
        - sum(octet_length(hashes) / 32) OVER (PARTITION BY partition ORDER BY first) AS island
    FROM retired_hashes
),
merged AS (
    SELECT partition, min(first) AS first, array_agg(first) AS members,
        string_agg(hashes, ''::bytea ORDER BY first) AS hashes
    FROM runs GROUP BY partition, island, first / 4096 HAVING count(*) > 1
),
grown AS (
    UPDATE retired_hashes r SET hashes = m.hashes FROM merged m WHERE r.partition = m.partition AND r.first = m.first
)
DELETE FROM retired_hashes r USING merged m
WHERE r.partition = m.partition AND r.first = ANY(m.members) AND r.first <> m.first
"""

ENDED: Final = tuple(status for status in Status if status.is_terminal)
Id = tuple[str, str]  # tenant, instance
Progress = Callable[[int], None]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What goes: instances that ended before `before_us`, in one of these ways, of all tenants or of one."""

    before_us: int
    statuses: tuple[Status, ...] = ENDED
    tenant: str | None = None

    def __post_init__(self) -> None:
        running = [status.value for status in self.statuses if not status.is_terminal]
        if running:
            raise BadInput(reason=f"only what has ended can be archived, not {', '.join(running)}")

    @property
    def parameters(self) -> tuple[list[str], int, str | None]:
        return [status.value for status in self.statuses], self.before_us, self.tenant


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """How much a policy takes of a tenant and status."""

    tenant: str
    status: str
    instances: int
    events: int
    oldest: int


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """`values`: files of values that went aside. `findings`: instances that were left because their events, or the
    values that they name, do not hold."""

    instances: int
    events: int
    files: list[str]
    values: int
    findings: list[Finding]

    @property
    def is_clean(self) -> bool:
        return not self.findings


async def summary(pool: "Pool[asyncpg.Record]", policy: Policy) -> list[Portion]:
    """What would go, without touching it."""
    rows = await pool.fetch(_SUMMARY, *policy.parameters)
    return [Portion(**{**row, "events": int(row["events"])}) for row in rows]


async def archive(
    pool: "Pool[asyncpg.Record]", policy: Policy, folder: Path, progress: Progress = lambda count: None
) -> Archived:
    """Write what `policy` takes into files in `folder`, and delete it. `pool` has two connections or more."""
    run = _Run(policy, folder, progress)
    async with pool.acquire() as reading, pool.acquire() as writing:
        async with reading.transaction(isolation="repeatable_read", readonly=True):
            async for ids in _chunks(reading, policy):
                await run.chunk(writing, ids)
        async with writing.transaction():
            await writing.execute(sql.ONE_AT_A_TIME)
            await writing.execute(_MERGE)
    return run.outcome()


async def _chunks(connection: "Connection[asyncpg.Record]", policy: Policy) -> AsyncIterator[list[Id]]:
    """Of one partition each, the oldest first."""
    chunk: list[Id] = []
    partition, events = -1, 0
    async for row in connection.cursor(_CANDIDATES, *policy.parameters, prefetch=PAGE):
        full = len(chunk) >= CHUNK_INSTANCES or events + row["version"] > CHUNK_EVENTS
        if chunk and (full or row["partition"] != partition):
            yield chunk
            chunk, events = [], 0
        chunk.append((row["tenant"], row["instance"]))
        partition, events = row["partition"], events + row["version"]
    if chunk:
        yield chunk


class _Run:
    """One go of the command: its files have its time in their names, and numbers."""

    def __init__(self, policy: Policy, folder: Path, progress: Progress) -> None:
        self._policy = policy
        self._folder = folder
        self._progress = progress
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._files: list[str] = []
        self._findings: list[Finding] = []
        self._counts: Counter[str] = Counter()

    def outcome(self) -> Archived:
        return Archived(
            instances=self._counts["instances"],
            events=self._counts["events"],
            files=self._files,
            values=self._counts["values"],
            findings=self._findings[:MAX_FINDINGS],
        )

    async def chunk(self, connection: "Connection[asyncpg.Record]", ids: Sequence[Id]) -> None:
        statuses, before, _ = self._policy.parameters
        async with connection.transaction():
            await connection.execute(sql.ONE_AT_A_TIME)
            locked = await connection.fetch(_LOCK, *_transposed(ids), statuses, before)
            if not locked:
                return
            name = f"{self._name}-{len(self._files) + 1:05d}.ndjson.gz"
            with ArchiveFile(self._folder, name) as file:
                sound = await self._write(connection, file, locked)
                if not sound:
                    return  # and no file
                digest = file.finish([_retired(row) for row in sound])
            await _retire(connection, [(row["tenant"], row["instance"]) for row in sound], name, digest)
        self._files.append(name)
        self._counts["instances"] += len(sound)
        self._counts["events"] += sum(row["version"] for row in sound)

    async def _write(
        self, connection: "Connection[asyncpg.Record]", file: ArchiveFile, locked: list[asyncpg.Record]
    ) -> list[asyncpg.Record]:
        """All events of these instances into the file; the rows of those that have ended, as their events say."""
        links = Links()
        ended: dict[Id, InstanceRow] = {}
        async for done in refolded(self._pages(connection, file, links, locked)):
            ended.update({one.id: one.row for one in done if one.row is not None})
        for row in locked:
            id = (row["tenant"], row["instance"])
            if id not in links.broken and not _is_as_told(row, ended.get(id)):
                problem = "its row is not what its events say; run `runtara audit rebuild` first"
                links.broken[id] = Finding(problem=problem, partition=row["partition"], tenant=id[0], instance=id[1])
        await self._write_values(connection, links, locked)
        self._findings += links.broken.values()
        return [row for row in locked if (row["tenant"], row["instance"]) not in links.broken]

    async def _write_values(
        self, connection: "Connection[asyncpg.Record]", links: Links, locked: list[asyncpg.Record]
    ) -> None:
        """Of each instance the values that its events name, into files of their own."""
        partitions = {(row["tenant"], row["instance"]): row["partition"] for row in locked}
        for use in await connection.fetch(_USES, *_transposed(list(partitions))):
            id, hash = (use["tenant"], use["instance"]), use["hash"]
            if id in links.broken:
                continue
            try:
                written = await write_blob(self._folder, id[0], hash, packed_parts(connection, id[0], hash))
            except Damaged as exc:
                problem = f"a value that its events name {exc} (SHA-256 {hash}); see `runtara audit verify`"
                links.broken[id] = Finding(problem=problem, partition=partitions[id], tenant=id[0], instance=id[1])
            else:
                self._counts["values"] += written

    async def _pages(
        self,
        connection: "Connection[asyncpg.Record]",
        file: ArchiveFile,
        links: Links,
        locked: list[asyncpg.Record],
    ) -> AsyncIterator[list[asyncpg.Record]]:
        cursor = await connection.cursor(_EVENTS, *_transposed([(row["tenant"], row["instance"]) for row in locked]))
        while page := await cursor.fetch(PAGE):
            file.write(page)
            for record in page:
                links.step(record)
            self._progress(len(page))
            yield page


def _is_as_told(row: asyncpg.Record, folded: InstanceRow | None) -> bool:
    """Whether the log says of an instance what its row, by which it was chosen, does."""
    if folded is None:
        return False
    state = folded.state
    told = (row["status"], row["version"], row["hash"], row["updated_at"])
    return told == (state.status.value, state.version, folded.hash, folded.updated_at)


def _retired(row: asyncpg.Record) -> RetiredInstance:
    return RetiredInstance(
        tenant=row["tenant"],
        instance=row["instance"],
        partition=row["partition"],
        workflow=row["workflow"],
        status=row["status"],
        version=row["version"],
        hash=row["hash"].hex(),
    )


async def _retire(connection: "Connection[asyncpg.Record]", ids: Sequence[Id], name: str, digest: bytes) -> None:
    given, now = _transposed(ids), time.time_ns() // 1_000
    await connection.execute(_RETIRE_USES, *given, now)
    await connection.execute(_RETIRE_EVENTS, *given)
    await connection.execute(_RETIRE_INSTANCES, *given, now, name, digest)


def _transposed(ids: Sequence[Id]) -> list[list[str]]:
    return [list(part) for part in zip(*ids, strict=True)]
