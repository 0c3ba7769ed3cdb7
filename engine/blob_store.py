"""Where values that went aside are kept, by their content: the port, and its adapter for Postgres.

A value comes in parts, under a name that its sender has drawn for this upload; with the last one it is whole: then it
is checked against its hash, and from then on there. What is there already is not stored again. Parts are compressed one
by one, in threads. Another store (of the S3 kind, say) fills the same verbs; who uses what is in Postgres anyway.

Invariants: what `get` finds was whole and right when it was stored; nothing in use is collected, and nothing that was
stored, asked for again or let go of less than a day ago; no verb holds more than a part or two in memory.
"""

import asyncio
import hashlib
import time
from typing import Final, Protocol

import asyncpg

from runtara.infra.packing import Unpackable, pack, unpack
from runtara.infra.postgres import PgConnection
from runtara.protocol.blobs import Blob, Part
from runtara.protocol.errors import BlobCorrupt, BlobMissing, Malformed

COLLECTED_AT_ONCE: Final = 200

_PUT_ONLY: Final = """
WITH kept AS (
    INSERT INTO blobs (tenant, hash, size, upload, stored_at, unused_since) VALUES ($1, $2, $3, $4, $6, $6)
    ON CONFLICT (tenant, hash) DO UPDATE SET unused_since = excluded.unused_since RETURNING upload
)
INSERT INTO blob_parts (tenant, upload, n, data) SELECT $1, $4, 0, $5 FROM kept WHERE kept.upload = $4
ON CONFLICT DO NOTHING
"""
_PUT_PART: Final = """
WITH begun AS (INSERT INTO blob_uploads (tenant, upload, began_at) VALUES ($1, $2, $5) ON CONFLICT DO NOTHING)
INSERT INTO blob_parts (tenant, upload, n, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
_TOUCH: Final = "UPDATE blobs SET unused_since = $3 WHERE tenant = $1 AND hash = $2 RETURNING upload"
_PART: Final = "SELECT data FROM blob_parts WHERE tenant = $1 AND upload = $2 AND n = $3"
_SEAL: Final = """
WITH whole AS (DELETE FROM blob_uploads WHERE tenant = $1 AND upload = $4 RETURNING upload)
INSERT INTO blobs (tenant, hash, size, upload, stored_at, unused_since) SELECT $1, $2, $3, upload, $5, $5 FROM whole
ON CONFLICT (tenant, hash) DO UPDATE SET unused_since = excluded.unused_since RETURNING upload
"""
# Whoever lets go of values says so first: somebody looks later whether they are still used.
LET_GO: Final = """
UPDATE blobs SET unused_since = $3 WHERE tenant = $1 AND hash = ANY($2::text[]) AND unused_since IS NULL
"""
_DROP_UPLOAD: Final = """
WITH given_up AS (DELETE FROM blob_uploads WHERE tenant = $1 AND upload = $2)
DELETE FROM blob_parts WHERE tenant = $1 AND upload = $2
"""
_GET: Final = """
SELECT b.size, p.data FROM blobs b
LEFT JOIN blob_parts p ON p.tenant = b.tenant AND p.upload = b.upload AND p.n = $3
WHERE b.tenant = $1 AND b.hash = $2 AND ($4::text IS NULL OR EXISTS (
    SELECT FROM blob_uses u WHERE u.tenant = $1 AND u.instance = $4 AND u.hash = $2
))
"""
_COLLECT: Final = """
WITH old AS (
    SELECT b.tenant, b.hash, b.upload, EXISTS (
        SELECT FROM blob_uses u WHERE u.tenant = b.tenant AND u.hash = b.hash
    ) OR EXISTS (
        SELECT FROM schedules s WHERE s.tenant = b.tenant AND s.input_blob ->> 'hash' = b.hash
    ) AS used
    FROM blobs b WHERE b.unused_since < $1 ORDER BY b.unused_since LIMIT $2 FOR UPDATE OF b SKIP LOCKED
),
kept AS (
    UPDATE blobs b SET unused_since = NULL FROM old WHERE old.used AND b.tenant = old.tenant AND b.hash = old.hash
),
gone AS (
    DELETE FROM blobs b USING old WHERE NOT old.used AND b.tenant = old.tenant AND b.hash = old.hash
),
parts AS (
    DELETE FROM blob_parts p USING old WHERE NOT old.used AND p.tenant = old.tenant AND p.upload = old.upload
)
SELECT count(*) AS seen, count(*) FILTER (WHERE NOT used) AS gone FROM old
"""
_COLLECT_UPLOADS: Final = """
WITH old AS (DELETE FROM blob_uploads WHERE began_at < $1 RETURNING tenant, upload)
DELETE FROM blob_parts p USING old WHERE p.tenant = old.tenant AND p.upload = old.upload
"""


class BlobStore(Protocol):
    """What the engine needs of whoever keeps blobs; `engine.memory.MemoryBlobs` is its twin."""

    async def put(self, tenant: str, part: Part, data: bytes) -> None:
        """Returns when it is durable. Raises `Malformed` if the value, now whole, is not what its hash says."""
        ...

    async def get(self, tenant: str, hash: str, n: int, *, instance: str | None = None) -> bytes:
        """Part `n` of a value; with `instance`, of one that its events name. Raises `BlobMissing`, `BlobCorrupt`."""
        ...

    async def collect(self, *, before_us: int) -> int:
        """Forget what nobody uses, and nobody has stored or let go of since; how many values that were."""
        ...


class PostgresBlobs:
    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def put(self, tenant: str, part: Part, data: bytes) -> None:
        now = time.time_ns() // 1_000
        blob, upload = part.blob, part.upload
        if blob.parts == 1:
            packed = await _checked_and_packed(blob, data)
            await self._pool.execute(_PUT_ONLY, tenant, blob.hash, blob.size, upload, packed, now)
        elif part.is_last:
            await self._finish(tenant, part, data, now)
        else:
            packed = await asyncio.to_thread(pack, data)
            await self._pool.execute(_PUT_PART, tenant, upload, part.n, packed, now)

    async def _finish(self, tenant: str, part: Part, data: bytes, now: int) -> None:
        blob, upload = part.blob, part.upload
        async with self._pool.acquire() as connection:
            kept = await connection.fetchval(_TOUCH, tenant, blob.hash, now)
            if kept is None:
                packed = await asyncio.to_thread(pack, data)
                await connection.execute(_PUT_PART, tenant, upload, part.n, packed, now)
                await _check_whole(connection, tenant, part)
                kept = await connection.fetchval(_SEAL, tenant, blob.hash, blob.size, upload, now)
            if kept is None:
                raise Malformed(reason="this upload was given up; send the value again")
            if kept != upload:  # the same value is there from another upload
                await connection.execute(_DROP_UPLOAD, tenant, upload)

    async def get(self, tenant: str, hash: str, n: int, *, instance: str | None = None) -> bytes:
        row = await self._pool.fetchrow(_GET, tenant, hash, n, instance)
        if row is None:
            told = "nothing is stored under this hash" + (
                "" if instance is None else " that this instance has recorded"
            )
            raise missing(hash, told)
        if row["data"] is None:
            raise missing(hash, f"its part {n} is not stored")
        try:
            data = await asyncio.to_thread(unpack, row["data"])
        except Unpackable as exc:
            raise corrupt(hash, f"part {n}: {exc}") from exc
        expected = Blob(hash=hash, size=row["size"]).part_size(n)
        if len(data) != expected:
            raise corrupt(hash, f"part {n} has {len(data):,} bytes instead of {expected:,}")
        return data

    async def collect(self, *, before_us: int) -> int:
        gone = 0
        while True:
            row = await self._pool.fetchrow(_COLLECT, before_us, COLLECTED_AT_ONCE)
            gone += row["gone"] if row is not None else 0
            if row is None or row["seen"] < COLLECTED_AT_ONCE:
                break
        await self._pool.execute(_COLLECT_UPLOADS, before_us)
        return gone


def missing(hash: str, reason: str) -> BlobMissing:
    """Whoever asked knows of which key and instance it is."""
    return BlobMissing(instance="", key="", hash=hash, reason=reason)


def corrupt(hash: str, reason: str) -> BlobCorrupt:
    """As `missing`."""
    return BlobCorrupt(instance="", key="", hash=hash, reason=reason)


async def _check_whole(connection: PgConnection, tenant: str, part: Part) -> None:
    blob, digest = part.blob, hashlib.sha256()
    for n in range(blob.parts):
        packed = await connection.fetchval(_PART, tenant, part.upload, n)
        if packed is None:
            raise Malformed(reason=f"part {n} of the blob is missing; the last one is to be sent after all others")
        digest.update(await asyncio.to_thread(unpack, packed))
    if digest.hexdigest() != blob.hash:
        await connection.execute(_DROP_UPLOAD, tenant, part.upload)
        raise _wrong(blob)


async def _checked_and_packed(blob: Blob, data: bytes) -> bytes:
    """Side by side: a step waits for it."""
    packing = asyncio.to_thread(pack, data)
    hash, packed = await asyncio.gather(asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()), packing)
    if hash != blob.hash:
        raise _wrong(blob)
    return packed


def _wrong(blob: Blob) -> Malformed:
    return Malformed(reason=f"the blob's content is not what its hash says ({blob.hash})")
