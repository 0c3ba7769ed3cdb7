"""The in-memory twin of the way to long values: what the SDK sends and asks arrives at the store in memory."""

from runtara.engine.memory import MemoryBlobs
from runtara.protocol.blobs import PartRequest, decode_part


class MemoryDoor:
    """Of `instance`, or of the whole tenant for its clients."""

    def __init__(self, store: MemoryBlobs, tenant: str, instance: str | None = None) -> None:
        self._store = store
        self._tenant = tenant
        self._instance = instance

    async def put(self, message: bytes) -> None:
        await self._store.put(self._tenant, *decode_part(message))

    async def get(self, question: PartRequest) -> bytes:
        return await self._store.get(self._tenant, question.hash, question.n, instance=self._instance)
