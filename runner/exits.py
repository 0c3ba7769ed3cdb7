"""Telling the platform that worker processes ended, for each attempt that ended with them.

Invariant: an exit that cannot be told (no journal, no engine) holds nothing up; the lease of the worker says
the same a little later.
"""

import asyncio
import contextlib
from typing import Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.credentials import Kind
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import new_token
from runtara.protocol.records import Exited
from runtara.sdk.connection import Connection
from runtara.sdk.credentials import own_user

from .child import Ended

log = logger("runner")

FLUSH_SECONDS: Final = 2.0


class Exits(Service):
    """The journal voice of one runner."""

    def __init__(self, settings: Settings) -> None:
        self.id = own_user(settings, Kind.RUNNER) or f"r-{new_token()}"
        super().__init__(f"exits {self.id}")
        self._settings = settings
        self._queue: asyncio.Queue[Ended] = asyncio.Queue()
        self._writer: JournalWriter | None = None

    async def open(self) -> None:
        self.spawn(self._run(), "exits")

    def tell(self, ended: Ended) -> None:
        if ended.worker is not None and ended.hosted:
            self._queue.put_nowait(ended)

    async def drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._queue.join()
                if self._writer is not None:
                    await self._writer.flush()

    async def _run(self) -> None:
        connection = await Connection.open(
            self._settings, kind=Kind.RUNNER, user=self.id, name=f"runtara runner {self.id}", patience=None
        )
        async with connection:
            subjects, tenant = connection.subjects, connection.tenant
            self._writer = JournalWriter(
                connection.bus, lambda partition: subjects.runner(partition, tenant, self.id), on_fatal=self.fail
            )
            try:
                while True:
                    self._publish(connection, self._writer, await self._queue.get())
                    self._queue.task_done()
            finally:
                await self._writer.close()

    def _publish(self, connection: Connection, writer: JournalWriter, ended: Ended) -> None:
        log.info("worker_exit_told", worker=ended.worker, instances=len(ended.hosted), reason=ended.reason)
        for instance, attempt in ended.hosted:
            record = Exited(
                instance=instance,
                attempt=attempt,
                worker=ended.worker or "",
                reason=ended.reason,
                stderr=ended.stderr,
            )
            writer.send(connection.partition(instance), encode_record(record))
