"""What an attempt tells: steps, events of the user, ends. Accepted only under the current claim, in order.

Invariants: a report of the current claim with the next seq is applied, or ends the attempt; an older seq is a
duplicate; the first outcome of a key is its memo.
"""

from typing import Literal

from msgspec.structs import replace

from runtara.protocol.errors import DuplicateKey, Malformed, RuntaraError, WireError
from runtara.protocol.events import (
    AnyEvent,
    CheckpointSaved,
    CompensationAdded,
    CustomEvent,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFailed,
    InstancePaused,
    LogWritten,
    ProgressReported,
    StepFailed,
)
from runtara.protocol.limits import MAX_NAME_LENGTH
from runtara.protocol.records import (
    AnyReport,
    Cancelled,
    Checkpointed,
    Compensating,
    Completed,
    Continued,
    Custom,
    Failed,
    Log,
    Progress,
    StepFailure,
    Unreadable,
)
from runtara.protocol.subjects import Source

from .clock import deadline
from .decision import DUPLICATE, Decision, Draft, stale_claim
from .endings import end_attempt, obey_cancel, requeue
from .keyset import key_hash
from .state import State

Recorded = Checkpointed | StepFailure | Custom


def unclaimed(state: State, record: AnyReport | Unreadable, now: int, source: Source) -> Decision | None:
    """What to do with a report that is not the next one of the current claim; None if it is."""
    claim = state.claim
    if (
        claim is None
        or claim.nonce != record.nonce
        or claim.attempt != record.attempt
        or claim.reserved
        or (source.worker is not None and source.worker != claim.worker)
    ):
        ended = state.ended
        is_ended = ended is not None and (ended.nonce, ended.attempt) == (record.nonce, record.attempt)
        if ended is not None and is_ended and record.seq <= ended.last_seq:
            return DUPLICATE
        return stale_claim(state, record.instance, record.attempt)
    if record.seq == claim.last_seq + 1:
        return None
    if record.seq <= claim.last_seq:
        return DUPLICATE
    gap = Malformed(reason=f"seq {record.seq} where {claim.last_seq + 1} was expected: a record is missing")
    return end_attempt(state, record, now, gap)


def position(state: State, attempt: int, nonce: str, seq: int) -> Literal["accepted", "rejected", "pending"]:
    """What became of report `seq` of a claim, as far as the state knows: of the current one, or the last that ended."""
    for claim in (state.claim, state.ended):
        if claim is not None and (claim.attempt, claim.nonce) == (attempt, nonce):
            if seq <= claim.last_seq:
                return "accepted"
            return "pending" if claim is state.claim else "rejected"
    return "pending" if state.claim is None and attempt >= state.attempt else "rejected"


def checkpointed(state: State, record: Checkpointed, now: int, source: Source) -> Decision:
    """The hot path."""
    unusual = unclaimed(state, record, now, source)
    if unusual is not None:
        return unusual
    fault = key_fault(state, record.key)
    if fault is not None:
        return end_attempt(state, record, now, fault)
    return Decision(events=(CheckpointSaved(key=record.key, data=record.data),))


def step_failed(state: State, record: StepFailure, now: int) -> Decision:
    fault = key_fault(state, record.key)
    if fault is not None:
        return end_attempt(state, record, now, fault)
    due = deadline(now, record.for_us) if record.for_us is not None else None
    return Decision(events=(StepFailed(key=record.key, n=record.n, error=clean(record.error), due_us=due),))


def custom(state: State, record: Custom, now: int) -> Decision:
    fault = key_fault(state, record.key)
    if fault is None and not (0 < len(record.name) <= MAX_NAME_LENGTH and record.name.isprintable()):
        fault = Malformed(reason="the event's name is empty, too long or has control characters")
    if fault is not None:
        return end_attempt(state, record, now, fault)
    return Decision(events=(CustomEvent(key=record.key, name=record.name, data=record.data, blob=record.blob),))


def compensating(state: State, record: Compensating, now: int) -> Decision:
    """Undos have keys of their own kind: one may be called like the step it undoes."""
    if record.key in state.compensations:
        return end_attempt(state, record, now, DuplicateKey(key=record.key))
    return Decision(events=(CompensationAdded(key=record.key, data=record.data),))


def ended(state: State, record: Completed | Failed | Cancelled) -> Decision:
    """The first end in journal order is the end, also if a cancel is under way."""
    event: AnyEvent
    match record:
        case Completed():
            event = InstanceCompleted(result=record.result, blob=record.blob)
        case Failed():
            event = InstanceFailed(error=clean(record.error))
        case Cancelled():
            event = InstanceCancelled(
                reason=record.reason or (state.cancel.reason if state.cancel is not None else None)
            )
    return Decision(events=(event,))


def continued(state: State, record: Continued, now: int) -> Decision:
    draft = Draft(state, record.instance, now)
    if state.cancel is not None:
        obey_cancel(draft)
        return draft.decision()
    paused = state.pause
    draft.emit(InstanceContinued(input=record.input, blob=record.blob))
    if paused:
        draft.emit(InstancePaused())
    else:
        requeue(draft, "continued")
    return draft.decision()


def observed(state: State, record: Progress | Log) -> Decision:
    """Best effort: counts under the current claim, is never a reason to end it."""
    claim = state.claim
    if claim is None or claim.reserved or (claim.attempt, claim.nonce) != (record.attempt, record.nonce):
        return stale_claim(state, record.instance, record.attempt)
    match record:
        case Progress():
            return Decision(events=(ProgressReported(done=record.done, total=record.total),))
        case Log():
            return Decision(events=(LogWritten(level=record.level, message=record.message, data=record.data),))


def key_fault(state: State, key: str) -> RuntaraError | None:
    """Why `key` cannot get an outcome now."""
    keys = state.keys
    if key_hash(key) in keys:
        return DuplicateKey(key=key)
    if not keys.complete:
        return Malformed(reason="sent before the claim was answered")
    return None


def clean(error: WireError) -> WireError:
    """An error as the log can keep it, and as queries over it can read it."""
    return replace(error, code=error.code.replace("\x00", ""), message=error.message.replace("\x00", ""))
