"""The in-memory twin of the store of blobs: what it keeps and refuses is what the real one does, uncompressed."""

import asyncio
import hashlib

from runtara.protocol.blobs import Blob, Part
from runtara.protocol.errors import BlobMissing, Malformed
from runtara.protocol.limits import PART_BYTES

from .clock import VirtualClock


class MemoryBlobs:
    """`values` by (tenant, hash); `uses` are (tenant, instance, hash), as the engine's log has them."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.values: dict[tuple[str, str], bytes] = {}
        self.uses: set[tuple[str, str, str]] = set()
        self._unused_since: dict[tuple[str, str], int] = {}
        self._uploads: dict[tuple[str, str], tuple[int, dict[int, bytes]]] = {}

    async def put(self, tenant: str, part: Part, data: bytes) -> None:
        await asyncio.sleep(0)
        blob, now = part.blob, self._clock.now_us()
        key, upload = (tenant, blob.hash), (tenant, part.upload)
        _, parts = self._uploads.setdefault(upload, (now, {}))
        parts[part.n] = data
        if not part.is_last:
            return
        if key not in self.values:
            self.values[key] = _whole(blob, parts)
        self._unused_since[key] = now
        del self._uploads[upload]

    async def get(self, tenant: str, hash: str, n: int, *, instance: str | None = None) -> bytes:
        await asyncio.sleep(0)
        value = self.values.get((tenant, hash))
        if value is None or (instance is not None and (tenant, instance, hash) not in self.uses):
            raise BlobMissing(instance="", key="", hash=hash, reason="nothing is stored under this hash")
        data = value[n * PART_BYTES : (n + 1) * PART_BYTES]
        if not data and n:
            raise BlobMissing(instance="", key="", hash=hash, reason=f"its part {n} is not stored")
        return data

    async def collect(self, *, before_us: int) -> int:
        used = {(tenant, hash) for tenant, _, hash in self.uses}
        old = [key for key, since in self._unused_since.items() if since < before_us]
        for key in old:
            del self._unused_since[key]
        gone = [key for key in old if key not in used]
        for key in gone:
            del self.values[key]
        self._uploads = {name: upload for name, upload in self._uploads.items() if upload[0] >= before_us}
        return len(gone)


def _whole(blob: Blob, parts: dict[int, bytes]) -> bytes:
    for n in range(blob.parts):
        if n not in parts:
            raise Malformed(reason=f"part {n} of the blob is missing; the last one is to be sent after all others")
    value = b"".join(parts[n] for n in range(blob.parts))
    if hashlib.sha256(value).hexdigest() != blob.hash:
        raise Malformed(reason=f"the blob's content is not what its hash says ({blob.hash})")
    return value
