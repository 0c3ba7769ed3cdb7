"""Folding the log again, instance by instance, and what differs from the projections.

Invariants: one instance is in memory at a time, and its neighbours of the same page; `instances`, `timers` and
`blob_uses` are compared as of the same moment as the log, which is consistent since each commit writes all of them.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Final

import asyncpg
import msgspec

from runtara.engine.lifecycle import UNKNOWN
from runtara.protocol.events import decode_event

from .blobs import hashes_in
from .instances import InstanceRow, columns, project
from .verdict import MAX_FINDINGS, PAGE, Connection, Finding, Verdict, place_of

_EVENTS: Final = """
SELECT partition, "offset", tenant, instance, version, type, key, recorded_at, data, hash FROM events
ORDER BY tenant, instance, version
"""
_INSTANCES: Final = """
SELECT i.* FROM instances i JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
"""
_TIMERS: Final = """
SELECT t.tenant, t.instance, t.version, t.due FROM timers t
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
"""
_USES: Final = """
SELECT u.tenant, u.instance, u.hash FROM blob_uses u
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
"""
_STRANGERS: Final = """
SELECT tenant, instance, max(partition) AS partition FROM (
    SELECT tenant, instance, partition FROM instances UNION SELECT tenant, instance, partition FROM timers
    UNION SELECT tenant, instance, NULL::int FROM blob_uses
) AS known WHERE NOT EXISTS (
    SELECT FROM events e WHERE e.tenant = known.tenant AND e.instance = known.instance AND e.version = 1
) GROUP BY tenant, instance
"""

Id = tuple[str, str]  # tenant, instance
Progress = Callable[[int], None]
_id = itemgetter("tenant", "instance")


class Unfoldable(Exception):
    """An event that the lifecycle cannot take."""

    def __init__(self, record: asyncpg.Record, reason: Exception) -> None:
        self.finding = Finding(
            problem=f"the event cannot be folded: {reason}", partition=record["partition"], **place_of(record)
        )


class Refolded(msgspec.Struct, frozen=True):
    """What the log says of an instance, and which values it uses; or what is wrong with its events."""

    id: Id
    row: InstanceRow | None
    finding: Finding | None = None
    uses: frozenset[str] = frozenset()


def fold(row: InstanceRow | None, records: Iterable[asyncpg.Record]) -> InstanceRow | None:
    """`row` and what the events behind it change. Raises `Unfoldable`."""
    for record in records:
        try:
            event = decode_event(record["type"], record["key"], record["data"])
            after = project(
                row, event, tenant=record["tenant"], instance=record["instance"], partition=record["partition"],
                recorded_at=record["recorded_at"], hash=record["hash"],
            )  # fmt: skip
        except (KeyError, ValueError, msgspec.MsgspecError) as exc:
            raise Unfoldable(record, exc) from exc
        if row is None:  # nobody asks for its keys, so none are collected
            after = msgspec.structs.replace(after, state=msgspec.structs.replace(after.state, keys=UNKNOWN))
        row = after
    return row


async def refolded(pages: AsyncIterator[list[asyncpg.Record]]) -> AsyncIterator[list[Refolded]]:
    """Instances as their events are read to their ends, in the order of `pages`: by tenant, instance, version."""
    open_one: Refolded | None = None
    async for page in pages:
        done: list[Refolded] = []
        for id, records in groupby(page, _id):
            if open_one is not None and open_one.id != id:
                done.append(open_one)
                open_one = None
            open_one = _further(open_one or Refolded(id, None), records)
        yield done
    if open_one is not None:
        yield [open_one]


def _further(one: Refolded, some: Iterable[asyncpg.Record]) -> Refolded:
    if one.finding is not None:
        return one
    records = list(some)
    try:
        return Refolded(one.id, fold(one.row, records), uses=one.uses | hashes_in(records))
    except Unfoldable as exc:
        return Refolded(one.id, None, exc.finding)


async def replay(connection: "Connection[asyncpg.Record]", progress: Progress = lambda count: None) -> Verdict:
    """Fold the log again and compare it with `instances` and `timers`. Each instance that differs is a finding."""
    events = instances = 0

    def count(some: int) -> None:
        nonlocal events
        events += some
        progress(some)

    findings: list[Finding] = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for some, found in drift(connection, count):
            instances += some
            findings += found[: MAX_FINDINGS - len(findings)]
    return Verdict(events=events, instances=instances, findings=findings)


async def drift(
    connection: "Connection[asyncpg.Record]", progress: Progress
) -> AsyncIterator[tuple[int, list[Finding]]]:
    """How many instances were compared, and what differs; page by page, within a transaction of the caller's."""
    async for done in refolded(_pages(connection, progress)):
        yield len(done), await _compare(connection, done)
    strangers = await connection.fetch(_STRANGERS)
    yield 0, [_finding("the log does not know this instance", _id(row), row["partition"] or 0) for row in strangers]


async def _pages(connection: "Connection[asyncpg.Record]", progress: Progress) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(_EVENTS)
    while page := await cursor.fetch(PAGE):
        progress(len(page))
        yield page


async def _compare(connection: "Connection[asyncpg.Record]", done: list[Refolded]) -> list[Finding]:
    findings = [one.finding for one in done if one.finding is not None]
    rows = {one.id: one.row for one in done if one.row is not None}
    if not rows:
        return findings
    ids = [list(part) for part in zip(*rows, strict=True)]
    there = {_id(record): record for record in await connection.fetch(_INSTANCES, *ids)}
    timers: dict[Id, dict[int, int]] = {}
    for record in await connection.fetch(_TIMERS, *ids):
        timers.setdefault(_id(record), {})[record["version"]] = record["due"]
    uses: dict[Id, set[str]] = {}
    for record in await connection.fetch(_USES, *ids):
        uses.setdefault(_id(record), set()).add(record["hash"])
    wanted = {one.id: one.uses for one in done}
    for id, row in rows.items():
        names = _differences(row, there.get(id), timers.get(id, {}))
        names += ["the values it uses"] if uses.get(id, set()) != wanted[id] else []
        if names:
            findings.append(_finding(f"the projection differs from the log in {', '.join(names)}", id, row.partition))
    return findings


def _finding(problem: str, id: Id, partition: int) -> Finding:
    return Finding(problem=problem, partition=partition, tenant=id[0], instance=id[1])


_COLUMNS: Final = (
    "tenant", "instance", "partition", "workflow", "status", "version", "attempt", "restarts", "worker", "parent",
    "labels", "created_at", "updated_at", "wake_at", "input", "input_blob", "result",
    "result_blob", "error", "progress", "state", "hash",
)  # fmt: skip
_JSON: Final = {"labels", "state"}  # compared by meaning: their text is not part of the promise


def _differences(row: InstanceRow, record: asyncpg.Record | None, timers: dict[int, int]) -> list[str]:
    if record is None:
        return ["all of it: there is no row for this instance"]
    names = [
        name
        for name, value in zip(_COLUMNS, columns(row), strict=True)
        if value != record[name] and not (name in _JSON and _same_json(value, record[name]))
    ]
    if timers != {version: timer.due_us for version, timer in row.state.timers.items()}:
        names.append("its timers")
    return names


def _same_json(one: object, other: object) -> bool:
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        return False
    return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
