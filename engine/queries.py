"""What the API reads: instances, events, memos. Always from the primary; always in pages."""

import base64
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.projections.instances import InstanceRow
from runtara.protocol.api import (
    EventsReply,
    EventsRequest,
    EventView,
    ForkedFrom,
    InstanceView,
    ListReply,
    ListRequest,
    MemosReply,
    PositionReply,
    PositionRequest,
    TailReply,
    TailRequest,
)
from runtara.protocol.errors import InstanceNotFound, Malformed
from runtara.protocol.events import InstanceForked, decode_event
from runtara.protocol.limits import MAX_INLINE_HISTORY_BYTES
from runtara.protocol.records import NO_DATA

from . import log as event_log
from . import sql
from .lifecycle import position as what_became_of

MAX_PAGE: Final = 1_000

_EVENT: Final = (
    'SELECT partition, "offset", instance, version, type, attempt, key, actor, recorded_at, data FROM events'
)
_EVENTS: Final = f"{_EVENT} WHERE tenant = $1 AND instance = $2 AND version > $3 ORDER BY version LIMIT $4"
_TAIL: Final = f'{_EVENT} WHERE tenant = $1 AND partition = $2 AND "offset" > $3 ORDER BY "offset" LIMIT $4'
_HEADS: Final = "SELECT id, head FROM partitions ORDER BY id"
_FORKED: Final = (
    "SELECT data FROM events WHERE tenant = $1 AND instance = $2 AND version = 2 AND type = 'InstanceForked'"
)
_ARCHIVE_OF: Final = "SELECT archive FROM retired WHERE tenant = $1 AND instance = $2"
LIST: Final = f"""
SELECT {", ".join(sql.INSTANCE_COLUMNS)} FROM instances
WHERE tenant = $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR workflow = $3)
    AND ($4::jsonb IS NULL OR labels @> $4) AND ($5::bigint IS NULL OR (created_at, instance) < ($5, $6))
    AND created_at > 0 -- the index for lists has this condition
ORDER BY created_at DESC, instance DESC LIMIT $7
"""

Connection = asyncpg.pool.PoolConnectionProxy


async def get(connection: "Connection[asyncpg.Record]", tenant: str, instance: str) -> InstanceView | None:
    rows = await connection.fetch(sql.LOAD_INSTANCES, [tenant], [instance])
    if not rows:
        return None
    forked = await connection.fetchval(_FORKED, tenant, instance)
    return msgspec.structs.replace(_view(event_log.row_of(rows[0])), forked_from=_source(forked))


def _source(forked: bytes | None) -> ForkedFrom | None:
    event = decode_event(InstanceForked.__name__, None, forked) if forked is not None else None
    return ForkedFrom(id=event.source, version=event.version) if isinstance(event, InstanceForked) else None


async def archive_of(connection: "Connection[asyncpg.Record]", tenant: str, instance: str) -> str | None:
    """The file that has an instance that is no longer here."""
    found: str | None = await connection.fetchval(_ARCHIVE_OF, tenant, instance)
    return found


async def not_found(connection: "Connection[asyncpg.Record]", tenant: str, instance: str) -> InstanceNotFound:
    """The error, which says so if the instance is in an archive."""
    archive = await archive_of(connection, tenant, instance)
    hint = f": it has ended, and is in the archive {archive}" if archive is not None else ""
    return InstanceNotFound(instance=instance, tenant=tenant, hint=hint)


def _view(row: InstanceRow, *, whole: bool = True) -> InstanceView:
    state = row.state
    return InstanceView(
        id=row.instance,
        tenant=row.tenant,
        workflow=state.workflow,
        status=state.status,
        attempt=state.attempt,
        restarts=state.restarts,
        version=state.version,
        labels=row.labels,
        created_at=row.created_at,
        updated_at=row.updated_at,
        wake_at=row.wake_at,
        input=row.input if whole else NO_DATA,
        input_blob=row.input_blob if whole else None,
        result=row.result if whole and row.result is not None else NO_DATA,
        result_blob=row.result_blob if whole else None,
        error=event_log.error_of(row),
        parent=row.parent,
        worker=state.claim.worker if state.claim is not None else None,
        progress=row.progress,
        note=_note(row),
        definition=state.options.definition,
    )


def _note(row: InstanceRow) -> str | None:
    state = row.state
    if state.external and state.status.value == "queued":
        return "waiting for its script to be started again"
    if state.cancel is not None and not state.status.is_terminal:
        return "cancel requested"
    return "pause requested" if state.pause else None


async def list_instances(connection: "Connection[asyncpg.Record]", tenant: str, request: ListRequest) -> ListReply:
    """A page, newest first; `next` is the cursor of the page behind it."""
    limit = max(1, min(request.limit, MAX_PAGE))
    created, instance = _cursor(request.cursor)
    labels = msgspec.json.encode(request.labels) if request.labels else None
    status = request.status.value if request.status is not None else None
    rows = await connection.fetch(LIST, tenant, status, request.workflow, labels, created, instance, limit + 1)
    views = [_view(event_log.row_of(row), whole=False) for row in rows[:limit]]
    more = len(rows) > limit
    return ListReply(instances=views, next=_next(views[-1]) if more else None)


def _next(last: InstanceView) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at}/{last.id}".encode()).decode()


def _cursor(cursor: str | None) -> tuple[int | None, str | None]:
    if cursor is None:
        return None, None
    try:
        created, _, instance = base64.urlsafe_b64decode(cursor.encode()).decode().partition("/")
        return int(created), instance
    except ValueError as exc:
        raise Malformed(reason="the cursor is not one that `list` gave out") from exc


async def events(
    connection: "Connection[asyncpg.Record]", tenant: str, instance: str, request: EventsRequest
) -> EventsReply:
    limit = max(1, min(request.limit, MAX_PAGE))
    rows = await connection.fetch(_EVENTS, tenant, instance, request.after, limit + 1)
    page: list[EventView] = []
    bytes_left = MAX_INLINE_HISTORY_BYTES
    for row in rows[:limit]:
        bytes_left -= len(row["data"])
        if page and bytes_left < 0:
            break
        page.append(_event(row))
    return EventsReply(events=page, more=len(page) < len(rows))


async def tail(connection: "Connection[asyncpg.Record]", tenant: str, request: TailRequest) -> TailReply:
    """What happened in the whole tenant behind these offsets. Without them: nothing yet, and where to go on."""
    heads = {str(row["id"]): row["head"] - 1 for row in await connection.fetch(_HEADS)}
    if request.after is None:
        return TailReply(events=[], after=heads)
    after = dict(heads)
    found: list[EventView] = []
    for partition, head in heads.items():
        seen = request.after.get(partition, head)
        rows = await connection.fetch(_TAIL, tenant, int(partition), seen, max(1, min(request.limit, MAX_PAGE)))
        found.extend(_event(row) for row in rows)
        after[partition] = rows[-1]["offset"] if rows else seen
    return TailReply(events=sorted(found, key=lambda event: (event.at, event.partition, event.offset)), after=after)


def _event(row: asyncpg.Record) -> EventView:
    return EventView(
        instance=row["instance"],
        version=row["version"],
        type=row["type"],
        at=row["recorded_at"],
        attempt=row["attempt"],
        key=row["key"],
        actor=row["actor"],
        data=Raw(row["data"]),
        partition=row["partition"],
        offset=row["offset"],
    )


async def memos(connection: "Connection[asyncpg.Record]", tenant: str, instance: str, after: int) -> MemosReply | None:
    rows = await connection.fetch(sql.LOAD_INSTANCES, [tenant], [instance])
    if not rows:
        return None
    state = event_log.row_of(rows[0]).state
    up_to = state.claim.version if state.claim is not None else state.version
    page, more = await event_log.memos(
        connection, tenant, instance, state, after=after, up_to=up_to, max_bytes=MAX_INLINE_HISTORY_BYTES
    )
    return MemosReply(memos=page, more=more)


async def position(
    connection: "Connection[asyncpg.Record]", tenant: str, instance: str, request: PositionRequest
) -> PositionReply:
    """What became of report `seq` of a claim: in the log, certainly not, or not folded yet."""
    rows = await connection.fetch(sql.LOAD_INSTANCES, [tenant], [instance])
    if not rows:
        return PositionReply(outcome="pending")
    state = event_log.row_of(rows[0]).state
    return PositionReply(outcome=what_became_of(state, request.attempt, request.nonce, request.seq))
