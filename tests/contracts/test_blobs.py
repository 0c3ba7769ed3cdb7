"""What keeps long values: the store in Postgres and its twin in memory hand out what was stored, or an error."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from runtara.engine import sql
from runtara.engine.blob_store import BlobStore, PostgresBlobs
from runtara.engine.memory import MemoryBlobs, VirtualClock
from runtara.infra.postgres import migrate, open_pool
from runtara.infra.settings import Settings
from runtara.protocol.blobs import Blob, Part, blob_of
from runtara.protocol.errors import BlobMissing, Malformed
from runtara.protocol.ids import new_token
from runtara.protocol.limits import PART_BYTES

pytestmark = pytest.mark.timeout(60)
T = "acme"
NOW, LATER = time.time_ns() // 1_000, 2**62
LONG = os.urandom(2 * PART_BYTES + 17)


class Kept(NamedTuple):
    """A store, and how the log says that an instance uses a value."""

    store: BlobStore
    use: Callable[[str, str], Awaitable[None]]


@pytest.fixture(params=["memory", "postgres"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        memory = MemoryBlobs(VirtualClock(NOW))

        async def note(instance: str, hash: str) -> None:
            memory.uses.add((T, instance, hash))

        yield Kept(memory, note)
        return
    settings: Settings = request.getfixturevalue("settings")
    await migrate(settings.require_database_url(), settings.deployment)
    async with await open_pool(settings.require_database_url(), settings.deployment, size=4) as pool:

        async def write(instance: str, hash: str) -> None:
            await pool.execute(sql.USE_BLOBS, [T], [instance], [hash])

        yield Kept(PostgresBlobs(pool), write)


async def put(store: BlobStore, value: bytes, *, blob: Blob | None = None) -> Blob:
    """`blob`: what `value` is said to be."""
    blob, upload = blob or blob_of(value), new_token()
    for n in range(blob.parts):
        data = value[n * PART_BYTES : (n + 1) * PART_BYTES]
        await store.put(T, Part(blob=blob, upload=upload, n=n), data)
    return blob


async def read(store: BlobStore, blob: Blob, **who: str | None) -> bytes:
    return b"".join([await store.get(T, blob.hash, n, **who) for n in range(blob.parts)])


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
async def test_what_is_stored_is_handed_out_as_it_was(kept: Kept, size: int) -> None:
    value = os.urandom(size)
    blob = await put(kept.store, value)
    assert await read(kept.store, blob) == value
    assert (blob.size, blob.hash) == (len(value), hashlib.sha256(value).hexdigest())


async def test_the_same_value_is_kept_once_and_sent_again_does_no_harm(kept: Kept) -> None:
    for value in (b"x" * 70_000, LONG):
        first = await put(kept.store, value)
        await kept.store.put(T, Part(blob=first, upload="again", n=0), value[:PART_BYTES])
        assert await put(kept.store, value) == first
        assert await read(kept.store, first) == value


async def test_a_part_that_is_sent_twice_counts_once(kept: Kept) -> None:
    blob = blob_of(LONG)
    for n in (1, 0, 0, 2, 2):
        data = LONG[n * PART_BYTES : (n + 1) * PART_BYTES]
        await kept.store.put(T, Part(blob=blob, upload="u", n=n), data)
    assert await read(kept.store, blob) == LONG


@pytest.mark.parametrize("size", [70_000, 2 * PART_BYTES + 17])
async def test_what_is_not_what_its_hash_says_is_refused_and_keeps_nobody_from_storing_the_right_one(
    kept: Kept, size: int
) -> None:
    value = os.urandom(size)
    blob, wrong = blob_of(value), bytes(size)
    with pytest.raises(Malformed, match="not what its hash says"):
        await put(kept.store, wrong, blob=blob)
    with pytest.raises(BlobMissing):
        await kept.store.get(T, blob.hash, 0)
    assert await read(kept.store, await put(kept.store, value)) == value


async def test_the_last_part_alone_makes_no_value(kept: Kept) -> None:
    blob = blob_of(LONG)
    with pytest.raises(Malformed, match="part 0 of the blob is missing"):
        await kept.store.put(T, Part(blob=blob, upload="u", n=2), LONG[2 * PART_BYTES :])
    with pytest.raises(BlobMissing):
        await kept.store.get(T, blob.hash, 2)


async def test_what_is_not_there_is_missing_by_tenant_part_and_instance(kept: Kept) -> None:
    blob = await put(kept.store, LONG)
    await kept.use("i-1", blob.hash)
    for tenant, hash, n, instance in (
        ("other", blob.hash, 0, None),
        (T, "0" * 64, 0, None),
        (T, blob.hash, 3, None),
        (T, blob.hash, 0, "i-2"),
    ):
        with pytest.raises(BlobMissing) as caught:
            await kept.store.get(tenant, hash, n, instance=instance)
        assert caught.value.hash == hash
    assert await read(kept.store, blob, instance="i-1") == LONG


async def test_only_what_nobody_uses_is_collected_and_only_when_it_is_old(kept: Kept) -> None:
    used, unused = await put(kept.store, LONG), await put(kept.store, b"y" * 70_000)
    await kept.use("i-1", used.hash)
    assert await kept.store.collect(before_us=NOW - 1) == 0
    assert await read(kept.store, unused)
    assert await kept.store.collect(before_us=LATER) == 1
    with pytest.raises(BlobMissing):
        await kept.store.get(T, unused.hash, 0)
    assert await read(kept.store, used) == LONG
    assert await kept.store.collect(before_us=LATER) == 0


async def test_an_upload_that_was_given_up_is_collected(kept: Kept) -> None:
    blob = blob_of(LONG)
    for n in (0, 1):
        data = LONG[n * PART_BYTES : (n + 1) * PART_BYTES]
        await kept.store.put(T, Part(blob=blob, upload="u", n=n), data)
    await kept.store.collect(before_us=LATER)
    with pytest.raises(Malformed, match="part 0 of the blob is missing"):
        await kept.store.put(T, Part(blob=blob, upload="u", n=2), LONG[2 * PART_BYTES :])
    assert await read(kept.store, await put(kept.store, LONG)) == LONG
