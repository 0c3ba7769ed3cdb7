"""Values that are too long for a record: stored before the record that names them is made, read when asked for.

Invariants: a record that names a value is numbered only once the platform has that value, so the log never names what
is not there; what is read is what its hash says, or an error that names instance, key and hash; a value is sent and
read in parts, a few at a time for all of a process.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from runtara.infra.logs import logger
from runtara.protocol.api import Reply
from runtara.protocol.blobs import ABSENT, Blob, Carried, Part, PartRequest, encode_part
from runtara.protocol.errors import (
    BlobCorrupt,
    BlobMissing,
    DataLost,
    InternalError,
    RuntaraError,
    Unavailable,
    from_wire,
)
from runtara.protocol.ids import new_token
from runtara.protocol.limits import INLINE_BYTES, PART_BYTES

from .connection import Connection
from .ports import BlobDoor

T = TypeVar("T")
log = logger("blobs")

PARTS_AT_ONCE: Final = 3  # of one value: while one is on its way another is compressed, and the next one stored
PART_SECONDS: Final = 15.0  # the last part of a long value is answered when all of it was checked
RETRY_SECONDS: Final = 0.5
MAX_RETRY_SECONDS: Final = 5.0
TRIES: Final = 3  # of whoever does not wait for ever
_replies: Final = msgspec.json.Decoder(Reply)
_encode: Final = msgspec.json.Encoder().encode


class Blobs:
    """The long values of one instance, or of a client. `patient`: it waits for the platform however long that takes."""

    def __init__(self, door: BlobDoor, *, patient: bool) -> None:
        self._door = door
        self._patient = patient

    async def carried(self, text: bytes | Raw, *, key: str) -> Carried:
        """`text` as a record may hold it: as it is, or as a reference to what the platform has when this returns."""
        if len(text) <= INLINE_BYTES:
            return Carried(text if isinstance(text, Raw) else Raw(text))
        return Carried(ABSENT, await self.put(bytes(text), key=key))

    async def put(self, text: bytes, *, key: str) -> Blob:
        """Store `text`, the value of `key`."""
        blob = Blob(hash=await _hash(text), size=len(text))
        upload, view, last = new_token(), memoryview(text), blob.parts - 1

        async def send(n: int) -> None:
            part = Part(blob=blob, upload=upload, n=n)
            message = encode_part(part, view[n * PART_BYTES : (n + 1) * PART_BYTES])
            await self._persistently(lambda: self._door.put(message), key)

        if last:
            await _in_parallel(send, range(last))
        await send(last)
        return blob

    async def text(self, carried: Carried, *, instance: str, key: str) -> bytes:
        """The JSON of what a record has under `key` of `instance`. Raises `BlobMissing`, `BlobCorrupt`."""
        blob = carried.blob
        if blob is None:
            return bytes(carried.text)
        parts: list[bytes] = [b""] * blob.parts

        async def fetch(n: int) -> None:
            question = PartRequest(hash=blob.hash, n=n)
            parts[n] = await self._persistently(lambda: self._door.get(question), key)

        try:
            await _in_parallel(fetch, range(blob.parts))
        except DataLost as exc:
            cls = BlobMissing if isinstance(exc, BlobMissing) else BlobCorrupt
            reason = str(exc.attributes.get("reason", exc))
            raise cls(instance=instance, key=key, hash=blob.hash, reason=reason) from exc
        text = b"".join(parts)
        if len(text) != blob.size or await _hash(text) != blob.hash:
            raise BlobCorrupt(instance=instance, key=key, hash=blob.hash, reason="its content has another hash")
        return text

    async def _persistently(self, attempt: Callable[[], Coroutine[Any, Any, T]], key: str) -> T:
        """The outcome of `attempt`, tried again while the platform cannot answer."""
        tries, delay = 0, RETRY_SECONDS
        while True:
            try:
                return await attempt()
            except (Unavailable, InternalError) as exc:
                tries += 1
                if not self._patient and tries >= TRIES:
                    raise
                log.warning("blob_delayed", key=key, tries=tries, reason=str(exc))
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_RETRY_SECONDS)


class ApiDoor:
    """The way to the platform's blobs over NATS: of `instance`, or of the whole tenant for its clients."""

    def __init__(self, connection: Connection, instance: str | None = None) -> None:
        self._connection = connection
        self._instance = instance

    async def put(self, message: bytes) -> None:
        await self._ask("blob_put", message)

    async def get(self, question: PartRequest) -> bytes:
        return await self._ask("blob", _encode(question))

    async def _ask(self, verb: str, message: bytes) -> bytes:
        connection = self._connection
        subject = connection.subjects.api(connection.tenant, verb, self._instance)
        async with connection.parts_in_flight:
            answer = await connection.bus.request(subject, message, timeout=PART_SECONDS)
        head, _, data = answer.partition(b"\n")
        error = _replies.decode(head).error
        if error is not None:
            raise from_wire(error)
        return data


async def _in_parallel(job: Callable[[int], Coroutine[Any, Any, None]], parts: range) -> None:
    """For all parts, a few at a time; the first error ends it."""
    if len(parts) == 1:
        await job(parts[0])
        return
    waiting = iter(parts)

    async def work() -> None:
        for n in waiting:
            await job(n)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARTS_AT_ONCE, len(parts))):
                group.create_task(work())
    except BaseExceptionGroup as exc:
        errors = [error for error in exc.exceptions if isinstance(error, RuntaraError)]
        raise (errors or exc.exceptions)[0] from None


async def _hash(text: bytes) -> str:
    """Of a long one part after the other, so that the loop goes on in between."""
    digest, view = hashlib.sha256(), memoryview(text)
    for start in range(0, len(view), PART_BYTES):
        digest.update(view[start : start + PART_BYTES])
        if start:
            await asyncio.sleep(0)
    return digest.hexdigest()
