"""Forks, as far as they need more than a decision: reading the source, and putting the record into the right journal.

Source and fork may belong to different partitions, and a partition is folded again on its own after its database was
restored. So what is taken over travels in the record, and whoever folds that asks nobody.

Invariants: the source is read as of one moment, from the primary; the request is answered once the journal of the
fork's partition has the record. The record bears the client's command id: asked again, the engine answers a command
that is in the log, whatever became of the source; else it sends the record again, which has no other effect.
"""

import asyncio
from typing import Final

import asyncpg
import msgspec

from runtara.infra.bus import NotAcknowledged, PublishRefused
from runtara.infra.logs import logger
from runtara.projections.instances import InstanceRow
from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import HistoryTooLarge, PlatformUnreachable
from runtara.protocol.events import decode_event
from runtara.protocol.ids import check_id, partition_of
from runtara.protocol.limits import MAX_FORK_BYTES
from runtara.protocol.messages import CommandAnswer
from runtara.protocol.subjects import may_answer

from . import log as event_log
from . import queries, sql
from .lifecycle import OF_UNDOS, fork_frame, fork_record, unknown_key
from .platform import Platform

log = logger("forks")

PUBLISH_SECONDS: Final = 3.0  # whoever asks waits for five, and shall hear the reason
AT_ONCE: Final = 4  # each may hold its record several times over, up to 8 MiB each
MAX_KEYS: Final = 10_000  # among which the nearest to an unknown one are looked for

# What is asked of an instance: its events with a key before the one at which the fork begins, and those of the keys
# that are edited. Of a failure that is not edited it is enough to know that there was one.
_WANTED: Final = """
FROM events WHERE tenant = $1 AND instance = $2 AND version > $3 AND key IS NOT NULL
    AND (version <= $4 OR key = ANY($5::text[]) OR key = '~failed')
"""
_SIZE: Final = f"""
SELECT coalesce(sum(octet_length(data::text)), 0) {_WANTED}
    AND version <> $4 AND type <> 'StepFailed' AND NOT key = ANY($5::text[])
"""
_EVENTS: Final = f"""
SELECT version, type, key, CASE WHEN type = 'StepFailed' AND NOT key = ANY($5::text[])
    THEN '{{"n": 0, "error": {{"code": "", "message": ""}}}}'::json ELSE data END AS data {_WANTED} ORDER BY version
"""
_DONE: Final = """
SELECT i.status FROM events e JOIN instances i USING (tenant, instance)
WHERE e.tenant = $1 AND e.instance = $2 AND e.version = 1 AND e.command = $3
"""
_FIRST: Final = """
SELECT key, min(version) AS version FROM events
WHERE tenant = $1 AND instance = $2 AND version > $3 AND key = ANY($4::text[]) AND NOT type = ANY($5::text[])
GROUP BY key
"""
_KEYS: Final = """
SELECT DISTINCT key FROM events
WHERE tenant = $1 AND instance = $2 AND version > $3 AND key IS NOT NULL AND NOT type = ANY($5::text[])
    AND key NOT IN ('~failed', '~timeout') AND NOT starts_with(key, '~undo/')
LIMIT $4
"""
_UNDOS: Final = [event.__name__ for event in OF_UNDOS]  # whose keys are none of operations
_ALL: Final = 2**31 - 1

_Connection = asyncpg.pool.PoolConnectionProxy


class Forks:
    """Makes forks, a few at a time."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._free = asyncio.Semaphore(AT_ONCE)

    async def fork(self, tenant: str, source: str, request: ForkRequest) -> None:
        """Returns when the journal has the record; the answer to the command comes after its commit.

        Raises `InvalidId`, `InstanceNotFound`, `UnknownKey`, `HistoryTooLarge`, `BadInput`, `Malformed`, and
        `PlatformUnreachable` while the journal takes nothing.
        """
        check_id(request.id, "command")
        check_id(request.instance, "instance")
        if request.actor is not None:
            check_id(request.actor, "actor")
        async with self._free:
            found = await self._read(tenant, source, request)
            if isinstance(found, CommandAnswer):
                await self._answer(tenant, request.reply, found)
                return
            frame = await asyncio.to_thread(_frame, *found, request)  # it takes as long as thousands of decisions
            await self._publish(partition_of(tenant, request.instance, self._platform.partitions), frame)

    async def _read(
        self, tenant: str, source: str, request: ForkRequest
    ) -> tuple[InstanceRow, list[asyncpg.Record]] | CommandAnswer:
        """The source and its events, or the answer if all is done."""
        async with (
            self._platform.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            status = await connection.fetchval(_DONE, tenant, request.instance, request.id)
            if status is not None:
                return CommandAnswer(id=request.id, instance=request.instance, status=status)
            rows = await connection.fetch(sql.LOAD_INSTANCES, [tenant], [source])
            if not rows:
                raise await queries.not_found(connection, tenant, source)
            row = event_log.row_of(rows[0])
            return row, await _events(connection, row, request)

    async def _answer(self, tenant: str, reply: str, answer: CommandAnswer) -> None:
        if may_answer(tenant, reply):
            await self._platform.voice.publish(reply, msgspec.json.encode([answer]))

    async def _publish(self, partition: int, frame: bytes) -> None:
        subject = self._platform.subjects.engine(partition)
        try:
            await self._platform.bus.publish_acked(subject, frame, timeout=PUBLISH_SECONDS)
        except (NotAcknowledged, PublishRefused) as exc:
            log.warning("fork_delayed", partition=partition, reason=str(exc))
            reason = f"the journal of partition {partition} takes no fork now ({exc.reason})"
            raise PlatformUnreachable(reason=reason) from exc


async def _events(
    connection: "_Connection[asyncpg.Record]", row: InstanceRow, request: ForkRequest
) -> list[asyncpg.Record]:
    place = (row.tenant, row.instance, row.state.floor)
    asked = [*request.set, *([request.at_key] if request.at_key is not None else [])]
    first = {found["key"]: found["version"] for found in await connection.fetch(_FIRST, *place, asked, _UNDOS)}
    for key in asked:
        if key not in first:
            keys = await connection.fetch(_KEYS, *place, MAX_KEYS, _UNDOS)
            raise await asyncio.to_thread(unknown_key, row.instance, key, [found["key"] for found in keys])
    wanted = (*place, first[request.at_key] if request.at_key is not None else _ALL, list(request.set))
    size = await connection.fetchval(_SIZE, *wanted)
    if size > MAX_FORK_BYTES:
        raise HistoryTooLarge(instance=row.instance, size=size, limit=MAX_FORK_BYTES)
    return await connection.fetch(_EVENTS, *wanted)


def _frame(row: InstanceRow, events: list[asyncpg.Record], request: ForkRequest) -> bytes:
    return fork_frame(
        fork_record(
            row.tenant, row.instance, state=row.state, input=Carried(row.input, row.input_blob),
            labels=row.labels, hash=row.hash,
            log=[(event["version"], decode_event(event["type"], event["key"], event["data"])) for event in events],
            request=request,
        )
    )  # fmt: skip
