"""The API's verbs about blobs: `blob_put` takes a part, `blob` gives one.

Invariants: parts are bytes behind a line of JSON, both ways; who speaks for one instance reads what that instance's
events name, and nothing else; only a few parts are in the engine's hands at once, the others wait before they are read.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from runtara.protocol.blobs import PartRequest, decode_part

from .blob_store import BlobStore

PARTS_AT_ONCE: Final = 4  # each takes up to three times its size
_requests: Final = msgspec.json.Decoder(PartRequest)


class Attached(NamedTuple):
    """An answer that is bytes."""

    data: bytes


class BlobVerbs:
    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def verbs(self) -> dict[str, Callable[[str, str | None, bytes], Awaitable[object]]]:
        """The same for tenants and instances."""
        return {"blob_put": self._put, "blob": self._get}

    async def _put(self, tenant: str, instance: str | None, data: bytes) -> object:
        part, content = decode_part(data)
        await self._store.put(tenant, part, content)
        return True

    async def _get(self, tenant: str, instance: str | None, data: bytes) -> object:
        wanted = _requests.decode(data)
        return Attached(await self._store.get(tenant, wanted.hash, wanted.n, instance=instance))
