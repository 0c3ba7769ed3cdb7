"""The instances projection: what the log says of each instance, as one row.

Invariants: a row is a function of the instance's events alone, so replaying the log gives exactly the rows that are
there; `project` is pure; `state` is the fold that `decide` works on, the other columns are what people ask for.
"""

from typing import Final

import msgspec
from msgspec import Raw

from runtara.engine.lifecycle import UNKNOWN, State, evolve
from runtara.protocol.blobs import Blob
from runtara.protocol.chain import GENESIS
from runtara.protocol.errors import WorkflowCancelled
from runtara.protocol.events import (
    AnyEvent,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceCreated,
    InstanceFailed,
    InstanceRetried,
    ProgressReported,
)
from runtara.protocol.messages import Status
from runtara.protocol.records import Parent

NOTHING: Final = b"null"


class InstanceRow(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One row of `instances`. `hash` is the last event's; `input`, `result` and `error` are JSON, and null where a blob
    beside them is what they are."""

    tenant: str
    instance: str
    partition: int
    state: State
    labels: dict[str, str]
    parent: Parent | None
    created_at: int
    updated_at: int
    input: Raw
    input_blob: Blob | None = None
    result: Raw | None = None
    result_blob: Blob | None = None
    error: bytes | None = None
    progress: tuple[int, int | None] | None = None
    hash: bytes = GENESIS

    @property
    def wake_at(self) -> int | None:
        return wake_at(self.state)

    @property
    def size(self) -> int:
        """Roughly what it takes in memory, in bytes."""
        return 1_500 + len(self.input) + len(self.result or b"") + 80 * len(self.state.keys)


def wake_at(state: State) -> int | None:
    """When the clock will wake it next, if it waits for the clock."""
    if state.status not in (Status.SLEEPING, Status.WAITING, Status.QUEUED):
        return None
    return min((timer.due_us for timer in state.timers.values()), default=None)


_replace = msgspec.structs.replace
_encode = msgspec.json.encode


def project(
    row: InstanceRow | None,
    event: AnyEvent,
    *,
    tenant: str,
    instance: str,
    partition: int,
    recorded_at: int,
    hash: bytes,
) -> InstanceRow:
    """The row after `event`. Raises `ValueError` if an instance's first event is not its creation."""
    state = evolve(row.state if row is not None else None, event)
    if row is None:
        if not isinstance(event, InstanceCreated):
            raise ValueError(f"the first event of {tenant}/{instance} is {type(event).__name__}")
        return InstanceRow(
            tenant=tenant,
            instance=instance,
            partition=partition,
            state=state,
            labels=event.labels,
            parent=event.parent,
            created_at=recorded_at,
            updated_at=recorded_at,
            input=event.input,
            input_blob=event.blob,
            hash=hash,
        )
    row = _replace(row, state=state, updated_at=recorded_at, hash=hash)
    return row if type(event) not in _SPECIAL else _with_outcome(row, event)


_SPECIAL: Final = {
    InstanceCancelled, InstanceCompleted, InstanceContinued, InstanceFailed, InstanceRetried, ProgressReported,
}  # fmt: skip


def _with_outcome(row: InstanceRow, event: AnyEvent) -> InstanceRow:
    match event:
        case InstanceCompleted():
            return _replace(row, result=event.result, result_blob=event.blob)
        case InstanceFailed():
            return _replace(row, error=_encode(event.error))
        case InstanceCancelled():
            reason = f": {event.reason}" if event.reason else ""
            return _replace(row, error=_encode(WorkflowCancelled(instance=row.instance, reason=reason).to_wire()))
        case InstanceContinued():
            return _replace(row, input=event.input, input_blob=event.blob)
        case InstanceRetried():
            return _replace(row, error=None)
        case ProgressReported():
            return _replace(row, progress=(event.done, event.total))
    return row


Columns = tuple[object, ...]
_state_encoder = msgspec.json.Encoder()


def encode_state(state: State) -> bytes:
    """Without the keys, of which memory has only hashes, and after a retry not even these."""
    return _state_encoder.encode(_replace(state, keys=UNKNOWN))


def columns(row: InstanceRow) -> Columns:
    """The row in the order of `infra`'s table, as asyncpg wants it."""
    state = row.state
    return (
        row.tenant,
        row.instance,
        row.partition,
        state.workflow,
        state.status.value,
        state.version,
        state.attempt,
        state.restarts,
        state.claim.worker if state.claim is not None else None,
        row.parent.instance if row.parent is not None else None,
        _encode(row.labels),
        row.created_at,
        row.updated_at,
        row.wake_at,
        bytes(row.input),
        _optional(row.input_blob),
        bytes(row.result) if row.result is not None else None,
        _optional(row.result_blob),
        row.error,
        _optional(row.progress),
        encode_state(state),
        row.hash,
    )


def _optional(value: object) -> bytes | None:
    return None if value is None else _encode(value)


def grown_columns(row: InstanceRow) -> Columns:
    """What changes where an instance only recorded something: the rest of its row stands as it was."""
    state = row.state
    return (row.tenant, row.instance, state.version, row.updated_at, encode_state(state), row.hash)


def only_grew(before: InstanceRow | None, after: InstanceRow) -> bool:
    """Whether nothing but the columns of `grown_columns` differs."""
    if before is None:
        return False
    old, new = before.state, after.state
    return (
        old.status is new.status
        and old.attempt == new.attempt
        and old.timers is new.timers
        and old.restarts == new.restarts
        and before.progress is after.progress
        and before.result is after.result
        and before.error is after.error
        and before.input is after.input
        and (old.claim is None) == (new.claim is None)
        and (old.claim is None or new.claim is None or old.claim.worker == new.claim.worker)
    )
