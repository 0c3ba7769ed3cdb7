"""The audit of the event log: are its chains whole, and do the projections say what it says?

`verify` walks a partition's events in offset order and checks what the writer promised: no gap in the offsets, no gap
in any instance's versions, every hash, the partition's head, and that a key has one outcome. It names the first event
that breaks a promise. `replay` folds the log again and compares the result with the rows that are there.

Both read with a cursor, in pages, and hold one small entry an instance (verify) or its row (replay).
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import asyncpg
import msgspec

from runtara.protocol.chain import GENESIS, HASHED, canonical, event_hash, next_head
from runtara.protocol.events import decode_event

from .instances import InstanceRow, columns, project

PAGE: Final = 2_000
MAX_FINDINGS: Final = 100

_EVENTS: Final = 'SELECT * FROM events WHERE partition = $1 ORDER BY "offset"'
_SECOND_OUTCOMES: Final = """
SELECT tenant, instance, key, min("offset") AS "offset", min(version) AS version FROM (
    SELECT tenant, instance, key, "offset", version, row_number() OVER
        (PARTITION BY tenant, instance, generation, key ORDER BY version) AS n
    FROM (
        SELECT *, count(*) FILTER (WHERE type = 'InstanceContinued') OVER
            (PARTITION BY tenant, instance ORDER BY version) AS generation
        FROM events WHERE partition = $1 AND type IN ('CheckpointSaved', 'CustomEvent', 'InstanceContinued')
    ) AS outcomes WHERE key IS NOT NULL
) AS numbered WHERE n > 1 GROUP BY tenant, instance, key ORDER BY "offset" LIMIT $2
"""
_PARTITIONS: Final = "SELECT id, head, head_hash FROM partitions ORDER BY id"
_INSTANCES: Final = "SELECT * FROM instances WHERE partition = $1 ORDER BY tenant, instance"

Connection = asyncpg.pool.PoolConnectionProxy

Progress = Callable[[int], None]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and where: `offset` and `version` of the first event that shows it."""

    problem: str
    partition: int
    offset: int | None = None
    tenant: str | None = None
    instance: str | None = None
    version: int | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`heads`: each partition's hash over its whole log; kept elsewhere, they prove that nothing was replaced."""

    events: int
    instances: int
    findings: list[Finding]
    heads: dict[str, str] = {}

    @property
    def is_clean(self) -> bool:
        return not self.findings


class _Chain(msgspec.Struct):
    version: int
    hash: bytes


async def verify(connection: "Connection[asyncpg.Record]", progress: Progress = lambda count: None) -> Verdict:
    """Check the chains of every partition, as of one moment (a repeatable-read transaction)."""
    findings: list[Finding] = []
    events = instances = 0
    heads: dict[str, str] = {}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for row in await connection.fetch(_PARTITIONS):
            walk = _Walk(row["id"])
            async for page in _pages(connection, row["id"]):
                for event in page:
                    walk.step(event)
                progress(len(page))
            walk.finish(row["head"], row["head_hash"])
            walk.second_outcomes(await connection.fetch(_SECOND_OUTCOMES, row["id"], MAX_FINDINGS))
            findings += walk.findings
            events += walk.offset
            instances += len(walk.chains)
            heads[str(row["id"])] = walk.head.hex()
    return Verdict(events=events, instances=instances, findings=findings[:MAX_FINDINGS], heads=heads)


class _Walk:
    """One partition, event by event."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.offset = 0
        self.head = GENESIS
        self.chains: dict[tuple[str, str], _Chain] = {}
        self.findings: list[Finding] = []

    def step(self, row: asyncpg.Record) -> None:
        if row["offset"] != self.offset:
            self._find(f"events {self.offset} to {row['offset'] - 1} are missing", row)
            self.offset = row["offset"]
        self.offset += 1
        self.head = next_head(self.head, row["hash"])
        id = (row["tenant"], row["instance"])
        chain = self.chains.get(id)
        before = chain if chain is not None else _Chain(0, GENESIS)
        if row["version"] != before.version + 1:
            self._find(f"version {row['version']} follows version {before.version}", row)
        elif event_hash(before.hash, _text(row)) != row["hash"]:
            self._find("its content does not match its hash", row)
        self.chains[id] = _Chain(row["version"], row["hash"])

    def finish(self, head: int, head_hash: bytes) -> None:
        if self.findings:
            return
        if self.offset != head:
            self._find(f"the log ends at offset {self.offset}, but {head} events were written", None)
        elif self.head != head_hash:
            self._find("the partition's head hash does not match its events", None)

    def second_outcomes(self, rows: list[asyncpg.Record]) -> None:
        """Where a key was recorded again, though its first outcome is its memo."""
        for row in rows:
            self._find(f"key {row['key']!r} has an outcome already", row)

    def _find(self, problem: str, row: asyncpg.Record | None) -> None:
        if len(self.findings) >= MAX_FINDINGS:
            return
        place = {} if row is None else {name: row[name] for name in ("offset", "tenant", "instance", "version")}
        self.findings.append(Finding(problem=problem, partition=self.partition, **place))


def _text(row: asyncpg.Record) -> bytes:
    return canonical(*(row[name] for name in HASHED))


async def _pages(connection: "Connection[asyncpg.Record]", partition: int) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(_EVENTS, partition)
    while page := await cursor.fetch(PAGE):
        yield page


async def replay(connection: "Connection[asyncpg.Record]", progress: Progress = lambda count: None) -> Verdict:
    """Fold the log again and compare it with `instances`, as of one moment. Each row that differs is a finding."""
    findings: list[Finding] = []
    events = instances = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for partition in await connection.fetch(_PARTITIONS):
            rows: dict[tuple[str, str], InstanceRow] = {}
            async for page in _pages(connection, partition["id"]):
                for record in page:
                    _fold(rows, record, findings)
                events += len(page)
                progress(len(page))
            instances += len(rows)
            findings += await _compare(connection, partition["id"], rows)
    return Verdict(events=events, instances=instances, findings=findings[:MAX_FINDINGS])


def _fold(rows: dict[tuple[str, str], InstanceRow], record: asyncpg.Record, findings: list[Finding]) -> None:
    id = (record["tenant"], record["instance"])
    try:
        rows[id] = project(
            rows.get(id),
            decode_event(record["type"], record["key"], record["data"]),
            tenant=id[0],
            instance=id[1],
            partition=record["partition"],
            recorded_at=record["recorded_at"],
            hash=record["hash"],
        )
    except (KeyError, ValueError, msgspec.MsgspecError) as exc:
        place = {name: record[name] for name in ("partition", "offset", "tenant", "instance", "version")}
        findings.append(Finding(problem=f"the event cannot be folded: {exc}", **place))


async def _compare(
    connection: "Connection[asyncpg.Record]", partition: int, rows: dict[tuple[str, str], InstanceRow]
) -> list[Finding]:
    findings = []
    there = set()
    async for record in connection.cursor(_INSTANCES, partition, prefetch=PAGE):
        id = (record["tenant"], record["instance"])
        there.add(id)
        row = rows.get(id)
        names = _differences(row, record) if row is not None else ["all of it: the log does not know this instance"]
        if names:
            problem = f"the projection differs from the log in {', '.join(names)}"
            findings.append(Finding(problem=problem, partition=partition, tenant=id[0], instance=id[1]))
    for tenant, instance in rows.keys() - there:
        problem = "the projection has no row for this instance"
        findings.append(Finding(problem=problem, partition=partition, tenant=tenant, instance=instance))
    return findings


_COLUMNS: Final = (
    "tenant", "instance", "partition", "workflow", "status", "version", "attempt", "restarts", "worker", "parent",
    "labels", "created_at", "updated_at", "wake_at", "input", "result", "error", "progress", "state", "hash",
)  # fmt: skip
_JSON: Final = {"labels", "state"}  # compared by meaning: their text is not part of the promise


def _differences(row: InstanceRow, record: asyncpg.Record) -> list[str]:
    return [
        name
        for name, value in zip(_COLUMNS, columns(row), strict=True)
        if value != record[name] and not (name in _JSON and _same_json(value, record[name]))
    ]


def _same_json(one: object, other: object) -> bool:
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        return False
    return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
