"""Are the archives what was archived? Their events are hashed again, and each chain must end at the hash that stayed.

The hashes that stayed are proved by the partitions' heads (`audit.verify`); the last one of an instance stands for all
of its events, since each is hashed over the one before it. The values that they name must lie beside the archives.
"""

import asyncio
import gzip
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from runtara.protocol.chain import canonical, event_hash

from .blob_files import file_damage
from .blobs import hash_in
from .export import EventLine
from .verdict import Connection, Finding

_ARCHIVES: Final = "SELECT archive, min(partition) AS partition FROM retired GROUP BY archive ORDER BY archive"
_RETIRED: Final = "SELECT tenant, instance, partition, version, hash FROM retired WHERE archive = $1"
_KEPT: Final = """
SELECT substring(hashes FROM (($2 - first) * 32 + 1)::int FOR 32) FROM retired_hashes
WHERE partition = $1 AND first <= $2 ORDER BY first DESC LIMIT 1
"""

Id = tuple[str, str]  # tenant, instance


class _End(msgspec.Struct, frozen=True):
    """Where an instance's chain ends in a file."""

    offset: int
    version: int
    hash: bytes
    values: tuple[tuple[str | None, str], ...] = ()  # key and hash of those that went aside


async def prove(connection: "Connection[asyncpg.Record]", folder: Path) -> list[Finding]:
    """What of the archives in `folder` is not what the database says was archived."""
    findings: list[Finding] = []
    for row in await connection.fetch(_ARCHIVES):
        name = row["archive"]
        try:
            ends = _ends(folder / name)
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as exc:
            findings.append(Finding(problem=f"archive {name} cannot be read: {exc}", partition=row["partition"]))
            continue
        for retired in await connection.fetch(_RETIRED, name):
            end = ends.get((retired["tenant"], retired["instance"]))
            problem = await _problem(connection, retired, end) or (await _lost_value(folder, retired, end))
            if problem is not None:
                findings.append(_finding(f"archive {name}: {problem}", retired, end))
    return findings


async def _problem(connection: "Connection[asyncpg.Record]", retired: asyncpg.Record, end: _End | None) -> str | None:
    if end is None:
        return "its events are missing"
    kept = await connection.fetchval(_KEPT, retired["partition"], end.offset)
    if (end.version, end.hash) != (retired["version"], retired["hash"]) or end.hash != kept:
        return "its events are not those that were archived"
    return None


async def _lost_value(folder: Path, retired: asyncpg.Record, end: _End | None) -> str | None:
    for key, hash in end.values if end is not None else ():
        damage = await asyncio.to_thread(file_damage, folder, retired["tenant"], hash)
        if damage is not None:
            return f"the value of key {key!r} {damage} (SHA-256 {hash})"
    return None


def _finding(problem: str, retired: asyncpg.Record, end: _End | None) -> Finding:
    return Finding(
        problem=problem,
        partition=retired["partition"],
        offset=end.offset if end is not None else None,
        tenant=retired["tenant"],
        instance=retired["instance"],
        version=end.version if end is not None else None,
    )


def _ends(file: Path) -> dict[Id, _End]:
    ends: dict[Id, _End] = {}
    for event in _events(file):
        id = (event.tenant, event.instance)
        before = ends.get(id)
        text = canonical(
            event.partition, event.offset, event.tenant, event.instance, event.version, event.type, event.attempt,
            event.key, event.actor, _micros(event.at), _micros(event.recorded_at),
            event.text.encode() if event.text is not None else bytes(event.data),
        )  # fmt: skip
        hash = event_hash(before.hash if before is not None else None, text)
        named = hash_in(event.type, event.key, bytes(event.data))
        values = before.values if before is not None else ()
        if named is not None:
            values = (*values, (event.key, named))
        ends[id] = _End(event.offset, event.version, hash, values)
    return ends


def _events(file: Path) -> Iterator[EventLine]:
    """But for the last line, which says whose they are."""
    decoder = msgspec.json.Decoder(EventLine)
    with gzip.open(file) as lines:
        before: bytes | None = None
        for line in lines:
            if before is not None:
                yield decoder.decode(before)
            before = line


def _micros(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
