"""Telling the platform that a pooled container ended, for each attempt that ended with it.

Invariant: nothing waits for an end that cannot be told (no engine, no journal), nor is it told of what was claimed a
moment ago and is not committed: the lease of its worker says the same a little later.
"""

from typing import Final

import msgspec

from runtara.infra.logs import logger
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import ListReply, ListRequest
from runtara.protocol.errors import RuntaraError
from runtara.protocol.frames import encode_record
from runtara.protocol.messages import Status
from runtara.protocol.records import Exited
from runtara.sdk.connection import Connection

from .launches import Ending
from .pooled import Pooled

log = logger("runner")

PAGE: Final = 1_000  # of a list: the most that there may be


class PooledEnds:
    """By way of the runner's connection and writer."""

    def __init__(self, connection: Connection, writer: JournalWriter) -> None:
        self._connection = connection
        self._writer = writer

    async def tell(self, container: Pooled, ending: Ending) -> None:
        try:
            hosted = await self._hosted_by(container)
        except RuntaraError as exc:
            log.warning("pooled_end_not_told", worker=container.worker, reason=str(exc))
            return
        log.info("pooled_end_told", worker=container.worker, instances=len(hosted))
        for instance, attempt in hosted:
            record = Exited(
                instance=instance, attempt=attempt, worker=container.worker, reason=ending.reason, stderr=ending.stderr
            )
            self._writer.send(self._connection.partition(instance), encode_record(record))

    async def _hosted_by(self, container: Pooled) -> list[tuple[str, int]]:
        """The attempts that it has claimed, as far as that is committed."""
        hosted: list[tuple[str, int]] = []
        request = ListRequest(status=Status.RUNNING, workflow=container.workflow, limit=PAGE)
        while True:
            page = await self._connection.call("list", request, ListReply)
            hosted += [(view.id, view.attempt) for view in page.instances if view.worker == container.worker]
            if page.next is None:
                return hosted
            request = msgspec.structs.replace(request, cursor=page.next)
