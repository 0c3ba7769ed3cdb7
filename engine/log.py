"""The event log in Postgres: loading what a fold needs, and committing what it decided.

Invariants: one transaction a batch, whose first statement moves the cursor under the owner's token; if that finds no
row, nothing is written and `PartitionLost` is raised. What is read for decisions is read from the primary.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.postgres import PgConnection
from runtara.projections.instances import InstanceRow, columns, grown_columns
from runtara.protocol.blobs import Blob
from runtara.protocol.errors import PartitionLost, RuntaraError, WireError
from runtara.protocol.events import MEMO_TYPES, AnyEvent, decode_event, memo_of
from runtara.protocol.limits import OWNER_LEASE_SECONDS
from runtara.protocol.messages import Memo

from . import sql
from .cache import Id
from .fold import Fold
from .fold_values import CommandId, Position
from .lifecycle import OF_UNDOS, State, effects, is_failure, needs_keys, recorded_keys, with_keys
from .streams import Anchor, Fingerprint
from .workflows import write_changes

SMALL_BATCH_EVENTS: Final = 128
MAX_COMMIT_SECONDS: Final = 10  # of one batch, 16 MiB at the most
ROWS_AT_ONCE: Final = 1_000
SHORT_ROWS: Final = 32  # of a history that is read together with others
SHORT_BYTES: Final = 2_048  # of each of its memos
MEMO_OVERHEAD_BYTES: Final = 120  # of a memo in JSON, besides key and data

_OF_UNDOS: Final = frozenset(event.__name__ for event in OF_UNDOS)
_state_decoder = msgspec.json.Decoder(State)


class RetiredMeanwhile(RuntaraError):
    template = "retired since they were read: {instances}"
    instances: list[str]


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as its owner found it at take-over. `token` is random; an engine draws a new one whenever it lost."""

    partition: int
    token: str
    anchor: Anchor
    position: Position
    run_created: str | None


async def take_over(connection: PgConnection, partition: int, token: str, *, patience: float = 0.0) -> Ownership | None:
    """Become the owner if nobody's lease has run for `patience` seconds.

    Waits for a commit in flight, so the cursor read here is the last.
    """
    row = await connection.fetchrow(sql.TAKE_OVER, partition, token, float(OWNER_LEASE_SECONDS), patience)
    if row is None:
        return None
    mark = Fingerprint(row["fingerprint_time"], row["fingerprint"]) if row["fingerprint"] is not None else None
    return Ownership(
        partition=partition,
        token=token,
        anchor=Anchor(created=row["stream_created"], cursor=row["cursor"], fingerprint=mark),
        position=Position(
            head=row["head"], head_hash=row["head_hash"], clock=row["clock"], journal_owner=row["journal_owner"]
        ),
        run_created=row["run_created"],
    )


@asynccontextmanager
async def bound_transactions(connection: PgConnection) -> AsyncIterator[None]:
    """Have Postgres end a commit of ours that stands still: stopped in its middle, we would hold the partition's row
    locked, and nobody could take over. (Before Postgres 17 that covers all but a COPY that waits for its data.)"""
    limit = f"{MAX_COMMIT_SECONDS}s"
    await connection.execute(f"SET idle_in_transaction_session_timeout = '{limit}'")
    if connection.get_server_version().major >= 17:
        await connection.execute(f"SET transaction_timeout = '{limit}'")
    try:
        yield
    finally:
        if not connection.is_closed():
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.execute("RESET ALL")


async def renew(connection: PgConnection, partition: int, token: str) -> None:
    """Raises `PartitionLost` if somebody else took over."""
    if await connection.fetchval(sql.RENEW, partition, token, float(OWNER_LEASE_SECONDS)) is None:
        raise PartitionLost(partition=partition)


async def release(connection: PgConnection, partition: int, token: str) -> None:
    """Let another engine take over at once."""
    await connection.execute(sql.RELEASE, partition, token)


async def load_rows(connection: PgConnection, ids: Sequence[Id]) -> list[InstanceRow]:
    """The rows of these instances that exist; those that go on with their recorded keys."""
    if not ids:
        return []
    found = await connection.fetch(sql.LOAD_INSTANCES, [t for t, _ in ids], [i for _, i in ids])
    return await _with_keys(connection, [row_of(record) for record in found])


async def load_known(connection: PgConnection, ids: Sequence[Id]) -> tuple[list[InstanceRow], dict[Id, str]]:
    """The rows as `load_rows` gives them, and of those that were retired the archive that has them."""
    if not ids:
        return [], {}
    found = await connection.fetch(sql.LOAD_KNOWN, [t for t, _ in ids], [i for _, i in ids])
    retired = {(r["asked_tenant"], r["asked_instance"]): r["archive"] for r in found if r["version"] is None}
    rows = [row_of(record) for record in found if record["version"] is not None]
    return await _with_keys(connection, rows), retired


async def _with_keys(connection: PgConnection, rows: list[InstanceRow]) -> list[InstanceRow]:
    live = [row for row in rows if needs_keys(row.state)]
    if not live:
        return rows
    keys = await _load_keys(connection, live)
    return [
        msgspec.structs.replace(row, state=with_keys(row.state, keys[row.tenant, row.instance]))
        if (row.tenant, row.instance) in keys
        else row
        for row in rows
    ]


async def _load_keys(connection: PgConnection, rows: list[InstanceRow]) -> dict[Id, list[int]]:
    found = await connection.fetch(
        sql.LOAD_KEYS,
        [row.tenant for row in rows],
        [row.instance for row in rows],
        [row.state.floor for row in rows],
    )
    logs: dict[Id, list[tuple[int, AnyEvent]]] = {(row.tenant, row.instance): [] for row in rows}
    for record in found:
        event = decode_event(record["type"], record["key"], record["data"])
        logs[record["tenant"], record["instance"]].append((record["version"], event))
    return {(row.tenant, row.instance): recorded_keys(row.state, logs[row.tenant, row.instance]) for row in rows}


def row_of(record: asyncpg.Record) -> InstanceRow:
    state = _state_decoder.decode(record["state"])
    return InstanceRow(
        tenant=record["tenant"],
        instance=record["instance"],
        partition=record["partition"],
        state=state,
        labels=msgspec.json.decode(record["labels"], type=dict[str, str]),
        parent=state.parent,
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        input=Raw(record["input"]),
        input_blob=_blob(record["input_blob"]),
        result=Raw(record["result"]) if record["result"] is not None else None,
        result_blob=_blob(record["result_blob"]),
        error=record["error"],
        progress=msgspec.json.decode(record["progress"], type=tuple[int, int | None]) if record["progress"] else None,
        hash=record["hash"],
    )


def _blob(text: bytes | None) -> Blob | None:
    return None if text is None else msgspec.json.decode(text, type=Blob)


async def repeated_commands(connection: PgConnection, asked: Sequence[CommandId]) -> frozenset[CommandId]:
    """Which of these commands the log has already."""
    if not asked:
        return frozenset()
    tenants, instances, ids = zip(*asked, strict=True)
    found = await connection.fetch(sql.REPEATED_COMMANDS, list(tenants), list(instances), list(ids))
    return frozenset((row["tenant"], row["instance"], row["command"]) for row in found)


async def commit(connection: PgConnection, ownership: Ownership, fold: Fold, *, before: Anchor, after: Anchor) -> None:
    """Write a fold. Raises `PartitionLost` if the partition is no longer ours, or no longer at `before`."""
    others = fold.revived or fold.outbox or fold.rejected or fold.timers or fold.workflows.changes
    if 0 < len(fold.events) <= SMALL_BATCH_EVENTS and not others:
        await _commit_small(connection, ownership, fold, before, after)
        return
    async with connection.transaction():
        await _advance(connection, ownership, fold.position, before, after)
        await _write(connection, ownership.partition, fold)


async def _commit_small(
    connection: PgConnection, ownership: Ownership, fold: Fold, before: Anchor, after: Anchor
) -> None:
    reshaped = [columns(row) for row in fold.reshaped]
    grown = [grown_columns(row) for row in fold.grown]
    moved = await connection.fetchval(
        sql.COMMIT_SMALL[bool(reshaped), bool(grown), bool(fold.blob_uses)],
        *_advance_parameters(ownership, fold.position, before, after),
        *_transposed(fold.events),
        *_transposed(reshaped),
        *_transposed(grown),
        *_transposed(list(fold.blob_uses)),
    )
    if moved is None:
        raise PartitionLost(partition=ownership.partition)


async def try_commit(connection: PgConnection, ownership: Ownership, fold: Fold, *, before: Anchor) -> None:
    """Write a fold and take it back: raises what `commit` would raise."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await _advance(connection, ownership, fold.position, before, before)
        await _write(connection, ownership.partition, fold)
    finally:
        await transaction.rollback()


async def _advance(
    connection: PgConnection, ownership: Ownership, position: Position, before: Anchor, after: Anchor
) -> None:
    moved = await connection.fetchval(sql.ADVANCE, *_advance_parameters(ownership, position, before, after))
    if moved is None:
        raise PartitionLost(partition=ownership.partition)


def _advance_parameters(ownership: Ownership, position: Position, before: Anchor, after: Anchor) -> tuple[object, ...]:
    mark = after.fingerprint
    return (
        ownership.partition,
        ownership.token,
        before.cursor,
        after.cursor,
        mark.digest if mark else None,
        mark.time_us if mark else None,
        position.clock,
        position.head,
        position.head_hash,
        position.journal_owner,
        float(OWNER_LEASE_SECONDS),
    )


async def _write(connection: PgConnection, partition: int, fold: Fold) -> None:
    if fold.revived:
        await _hold_ended(connection, fold.revived)
    if fold.events:
        await connection.copy_records_to_table("events", records=fold.events, columns=list(sql.EVENT_COLUMNS))
    if fold.reshaped:
        rows = [columns(row) for row in fold.reshaped]
        await connection.execute(sql.UPSERT_INSTANCES, *_transposed(rows))
    if fold.grown:
        rows = [grown_columns(row) for row in fold.grown]
        await connection.execute(sql.UPDATE_GROWN, *_transposed(rows))
    if fold.blob_uses:
        await connection.execute(sql.USE_BLOBS, *_transposed(list(fold.blob_uses)))
    if fold.timers:
        await _write_timers(connection, partition, fold)
    if fold.workflows.changes:
        await write_changes(connection, partition, fold.workflows.changes)
    if fold.outbox:
        await connection.execute(
            sql.ADD_OUTBOX,
            partition,
            [row.sequence for row in fold.outbox],
            [row.n for row in fold.outbox],
            [row.target for row in fold.outbox],
            [row.record for row in fold.outbox],
        )
    if fold.rejected:
        fields = ("sequence", "subject", "tenant", "instance", "code", "reason", "payload", "at")
        await connection.execute(
            sql.ADD_REJECTED, partition, *([getattr(row, field) for row in fold.rejected] for field in fields)
        )


async def _hold_ended(connection: PgConnection, ids: Sequence[Id]) -> None:
    """Keep an archive from taking what goes on. Raises `RetiredMeanwhile` if one has: it has to be decided again."""
    found = await connection.fetch(sql.HOLD_ENDED, [t for t, _ in ids], [i for _, i in ids])
    gone = set(ids) - {(row["tenant"], row["instance"]) for row in found}
    if gone:
        raise RetiredMeanwhile(instances=sorted(instance for _, instance in gone))


def _transposed(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    """Rows as columns, as `unnest` takes them. No rows have no columns."""
    return [list(column) for column in zip(*rows, strict=True)]


async def _write_timers(connection: PgConnection, partition: int, fold: Fold) -> None:
    timers = fold.timers
    if timers.dropped:
        await connection.execute(sql.DROP_TIMERS, *map(list, zip(*timers.dropped, strict=True)))
    if timers.added:
        tenants, instances, versions, due = map(list, zip(*timers.added, strict=True))
        await connection.execute(sql.ADD_TIMERS, tenants, instances, versions, [partition] * len(due), due)


async def memos(
    connection: PgConnection, tenant: str, instance: str, state: State, *, after: int, up_to: int, max_bytes: int
) -> tuple[list[Memo], bool]:
    """The memos with `after < version <= up_to`, at most about `max_bytes`, and whether there are more."""
    forgotten = await _forgotten(connection, tenant, instance, state)
    page: list[Memo] = []
    size = 0
    after = max(after, state.floor)
    while True:
        found = await connection.fetch(sql.MEMOS, tenant, instance, list(MEMO_TYPES), after, up_to, ROWS_AT_ONCE)
        for row in found:
            after = row["version"]
            if after <= forgotten.get(row["key"], 0) and row["type"] not in _OF_UNDOS:
                continue
            size += len(row["data"]) + len(row["key"]) + MEMO_OVERHEAD_BYTES
            if page and size > max_bytes:
                return page, True
            page.append(_memo(row))
        if len(found) < ROWS_AT_ONCE:
            return page, False


async def short_memos(
    connection: PgConnection, wanted: Sequence[tuple[str, str, State, int]]
) -> list[list[Memo] | None]:
    """Of each (tenant, instance, state, version): all memos up to that version; None if they are not short."""
    tenants, instances = [one[0] for one in wanted], [one[1] for one in wanted]
    floors, versions = [one[2].floor for one in wanted], [one[3] for one in wanted]
    found = await connection.fetch(
        sql.SHORT_MEMOS, tenants, instances, floors, versions, list(MEMO_TYPES), SHORT_BYTES, SHORT_ROWS + 1
    )
    pages: list[list[asyncpg.Record]] = [[] for _ in wanted]
    for row in found:
        pages[row["n"] - 1].append(row)
    return [_short(page) if not state.retried else None for page, (_, _, state, _) in zip(pages, wanted, strict=True)]


def _short(page: list[asyncpg.Record]) -> list[Memo] | None:
    if len(page) > SHORT_ROWS or any(row["data"] is None for row in page):
        return None
    return [_memo(row) for row in page]


def _memo(row: asyncpg.Record) -> Memo:
    type, data = memo_of(row["type"], row["data"])
    return Memo(key=row["key"], version=row["version"], type=type, data=data, at=row["recorded_at"])


async def _forgotten(connection: PgConnection, tenant: str, instance: str, state: State) -> dict[str, int]:
    """Key → version of the failure up to which `retry` made the instance forget it (`lifecycle.memos.served`)."""
    if not state.retried:
        return {}
    found = await connection.fetch(sql.FAILURES, tenant, instance, state.floor, state.retried)
    return {
        row["key"]: row["version"] for row in found if is_failure(decode_event(row["type"], row["key"], row["data"]))
    }


async def memos_at(connection: PgConnection, wanted: list[tuple[str, str, int]]) -> list[tuple[str, Memo]]:
    """The memos in the events of these (tenant, instance, version), each with its instance."""
    rows = await connection.fetch(sql.MEMOS_AT, *(list(column) for column in zip(*wanted, strict=True)))
    return [(row["instance"], _memo(row)) for row in rows if row["key"] is not None]


def is_run_due(state: State) -> bool:
    return effects(state).run_request is not None


def error_of(row: InstanceRow) -> WireError | None:
    return msgspec.json.decode(row.error, type=WireError) if row.error is not None else None
