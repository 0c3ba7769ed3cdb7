"""Values that went aside, as the database keeps them: read again, part by part, and proved by their hashes.

Invariants: what `packed_parts` has given out completely is what was stored; one part is in memory at a time.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import Final

import asyncpg
import msgspec

from runtara.infra.packing import Unpackable, unpack
from runtara.protocol.events import blob_named, decode_event
from runtara.protocol.limits import PART_BYTES

from .verdict import Connection, Finding, Place, place_of

_BLOB: Final = "SELECT upload, size FROM blobs WHERE tenant = $1 AND hash = $2"
_PART: Final = "SELECT data FROM blob_parts WHERE tenant = $1 AND upload = $2 AND n = $3"
_NAMED: Final = b'"blob"'

BlobId = tuple[str, str]  # tenant, hash


class Damaged(Exception):
    """A value is gone, or is not what was stored; the text says how."""


class Named(msgspec.Struct, frozen=True):
    """Where the log names a value: under which key, in which event. `key` is `input` or `result` where it has none."""

    key: str
    partition: int
    place: Place

    def finding(self, hash: str, problem: str) -> Finding:
        told = f"the value of key {self.key!r} {problem} (SHA-256 {hash})"
        return Finding(problem=told, partition=self.partition, **self.place)


def named_in(record: asyncpg.Record) -> tuple[BlobId, Named] | None:
    """The value that an event names, if any. `record` has the event's columns."""
    hash = hash_in(record["type"], record["key"], record["data"])
    if hash is None:
        return None
    key = record["key"] or ("result" if record["type"] == "InstanceCompleted" else "input")
    return (record["tenant"], hash), Named(key, record["partition"], place_of(record))


def hash_in(type: str, key: str | None, data: bytes) -> str | None:
    """The hash of the value that an event names, from its columns."""
    if _NAMED not in data:
        return None
    try:
        blob = blob_named(decode_event(type, key, data))
    except (KeyError, msgspec.MsgspecError):  # whoever folds it says so
        return None
    return None if blob is None else blob.hash


def hashes_in(records: Iterable[asyncpg.Record]) -> frozenset[str]:
    """Of all values that these events name."""
    found = (hash_in(record["type"], record["key"], record["data"]) for record in records)
    return frozenset(hash for hash in found if hash is not None)


async def packed_parts(connection: "Connection[asyncpg.Record]", tenant: str, hash: str) -> AsyncIterator[bytes]:
    """Its parts as they are stored, in order. Raises `Damaged`, at the latest after the last one."""
    row = await connection.fetchrow(_BLOB, tenant, hash)
    if row is None:
        raise Damaged("is missing")
    digest, size = hashlib.sha256(), 0
    for n in range(max(1, -(-row["size"] // PART_BYTES))):
        packed = await connection.fetchval(_PART, tenant, row["upload"], n)
        if packed is None:
            raise Damaged(f"lacks part {n}")
        try:
            data = unpack(packed)
        except Unpackable as exc:
            raise Damaged(f"cannot be read in part {n}: {exc}") from exc
        digest.update(data)
        size += len(data)
        yield packed
    if size != row["size"] or digest.hexdigest() != hash:
        raise Damaged("is not what its hash says")


async def damage(connection: "Connection[asyncpg.Record]", tenant: str, hash: str) -> str | None:
    """What is wrong with it, if something is."""
    try:
        async for _ in packed_parts(connection, tenant, hash):
            pass
    except Damaged as exc:
        return str(exc)
    return None
