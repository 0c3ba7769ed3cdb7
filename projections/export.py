"""The events of the log as documents for other programs: one JSON object a line, or rows of a Parquet file.

Invariants: an export is of one moment (a repeatable-read transaction) and is read in pages; its hashes can be computed
again from it, byte for byte; it ends with the heads of all partitions as of that moment, filters or not.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from .verdict import PAGE, Connection, Heads

_COLUMNS: Final = (
    'partition, "offset", tenant, instance, version, type, attempt, key, actor, command, at, recorded_at, data, hash'
)
_BREAKS: Final = (b"\n", b"\r")
_encoder: Final = msgspec.json.Encoder()


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: of a tenant, of instances, recorded from `since` on and before `until` (microseconds)."""

    tenant: str | None = None
    instances: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None


class EventLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as it is exported. `text`: its data byte for byte, where that has line breaks between its tokens."""

    partition: int
    offset: int
    tenant: str
    instance: str
    version: int
    type: str
    attempt: int
    key: str | None
    actor: str | None
    command: str | None
    at: str
    recorded_at: str
    data: Raw
    hash: str
    text: str | None = None


async def pages(connection: "Connection[asyncpg.Record]", selection: Selection) -> AsyncIterator[list[asyncpg.Record]]:
    """In order of partition and offset. Within a transaction of the caller's, whose moment it is."""
    statement, values = _query(selection)
    cursor = await connection.cursor(statement, *values)
    while page := await cursor.fetch(PAGE):
        yield page


def _query(selection: Selection) -> tuple[str, list[object]]:
    """Only the conditions that are asked for, so that each is found by the index that fits it."""
    conditions: dict[str, object] = {
        "tenant = {}": selection.tenant,
        "instance = ANY({}::text[])": list(selection.instances) or None,
        "recorded_at >= {}": selection.since,
        "recorded_at < {}": selection.until,
    }
    values = [value for value in conditions.values() if value is not None]
    given = [text for text, value in conditions.items() if value is not None]
    where = " AND ".join(text.format(f"${n}") for n, text in enumerate(given, start=1)) or "true"
    return f'SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY partition, "offset"', values


def lines(page: list[asyncpg.Record]) -> bytes:
    """A page as NDJSON."""
    return _encoder.encode_lines([event_line(record) for record in page])


def event_line(record: asyncpg.Record) -> EventLine:
    data: bytes = record["data"]
    text = None
    if any(one in data for one in _BREAKS):
        text = data.decode()
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")  # in JSON they can only stand between tokens
    return EventLine(
        partition=record["partition"],
        offset=record["offset"],
        tenant=record["tenant"],
        instance=record["instance"],
        version=record["version"],
        type=record["type"],
        attempt=record["attempt"],
        key=record["key"],
        actor=record["actor"],
        command=record["command"],
        at=rfc3339(record["at"]),
        recorded_at=rfc3339(record["recorded_at"]),
        data=Raw(data),
        hash=record["hash"].hex(),
        text=text,
    )


def heads_line(heads: Heads) -> bytes:
    """The last line of an export."""
    return msgspec.json.encode(heads) + b"\n"


def rfc3339(at_us: int) -> str:
    seconds, micros = divmod(at_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
