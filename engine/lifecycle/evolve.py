"""`evolve(state, event) -> state`: what an event changes. Pure, total over the events that `decide` makes.

Invariants: every event adds one to the version; every accepted numbered report is exactly one report event, and those
add one to the claim's `last_seq`, or end the claim. Events carry no time, so neither does the state: what is due when
was decided before and stands in the event.
"""

import hashlib
from typing import assert_never

from msgspec import Raw
from msgspec.structs import replace

from runtara.protocol.blobs import Blob
from runtara.protocol.events import (
    AnyEvent,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    CheckpointSaved,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    CompensationAdded,
    CompensationInherited,
    CustomEvent,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceCreated,
    InstanceFailed,
    InstanceForked,
    InstancePaused,
    InstanceQueued,
    InstanceResumed,
    InstanceRetried,
    InstanceSuspended,
    LogWritten,
    MemoCopied,
    PauseRequested,
    ProgressReported,
    ResourcesUsed,
    SignalReceived,
    SleepStarted,
    StepFailed,
    TimerFired,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
)
from runtara.protocol.ids import UNDO_PREFIX

from . import evolve_claims as claims
from . import evolve_waits as waits
from .keyset import NONE, key_hash
from .state import CancelOrder, State


def evolve(state: State | None, event: AnyEvent) -> State:
    """The state after `event`. Raises `ValueError` if the first event of an instance is not its creation."""
    if state is None:
        return _created(event)
    if type(event) is CheckpointSaved:
        return _checkpoint_saved(state, event)
    return _evolve(replace(state, version=state.version + 1), event)


def input_digest(data: Raw, blob: Blob | None) -> str:
    """What a repeated start is compared by."""
    if blob is not None:
        return blob.hash
    return hashlib.blake2b(bytes(data), digest_size=16).hexdigest()


def _created(event: AnyEvent) -> State:
    if not isinstance(event, InstanceCreated):
        raise ValueError(f"the first event of an instance is {type(event).__name__}, not its creation")
    return State(
        version=1,
        workflow=event.workflow,
        options=event.options,
        input_digest=input_digest(event.input, event.blob),
        parent=event.parent,
        external=event.origin == "registered",
        keys=NONE,
    )


def _checkpoint_saved(state: State, event: CheckpointSaved) -> State:
    """The hot path: one replace for the claim, one for the state."""
    key, claim = event.key or "", state.claim
    after = replace(
        state,
        version=state.version + 1,
        claim=replace(claim, last_seq=claim.last_seq + 1) if claim is not None else None,
        keys=state.keys.add(key_hash(key)),
        losses=0,
    )
    if key in state.waits:
        after = waits.closed(after, key)
    if key.startswith(UNDO_PREFIX):
        after = replace(after, undone=True)
    return after


def _evolve(state: State, event: AnyEvent) -> State:
    """By group, so that no function has to know them all; `state.version` is already that of `event`."""
    match event:
        case CheckpointSaved() | StepFailed() | CompensationAdded() | CustomEvent():
            return _recorded(state, event)
        case ProgressReported() | LogWritten():
            return state
        case ResourcesUsed():
            return replace(state, measured=event.attempt)
        case SleepStarted() | WaitStarted() | ChildRequested() | WaitResolved() | WaitAbandoned():
            return waits.evolve(state, event)
        case TimerFired() | SignalReceived() | ChildCompleted() | ChildFailed():
            return waits.evolve_cause(state, event)
        case AttemptStarted() | AttemptLost() | InstanceQueued() | InstanceSuspended() | InstancePaused():
            return claims.evolve(state, event)
        case InstanceContinued() | InstanceCompleted() | InstanceFailed() | InstanceCancelled():
            return claims.evolve_end(state, event)
        case PauseRequested() | InstanceResumed() | CancelRequested() | InstanceRetried():
            return _controlled(state, event)
        case MemoCopied():
            return replace(state, keys=state.keys.add(key_hash(event.key or "")))
        case InstanceCreated() | InstanceForked() | CompensationInherited():
            return state
        case _:
            assert_never(event)


def _recorded(state: State, event: CheckpointSaved | StepFailed | CompensationAdded | CustomEvent) -> State:
    state = waits.reported(state)
    key = event.key or ""
    match event:
        case CheckpointSaved() | CustomEvent():
            return replace(waits.closed(state, key), keys=state.keys.add(key_hash(key)))
        case StepFailed():
            return waits.step_failed(state, event, key)
        case CompensationAdded():
            return replace(state, compensations={**state.compensations, key: state.version})
        case _:
            assert_never(event)


def _controlled(state: State, event: PauseRequested | InstanceResumed | CancelRequested | InstanceRetried) -> State:
    match event:
        case PauseRequested():
            return replace(state, pause=True)
        case InstanceResumed():
            claim = state.claim
            if claim is not None:
                claim = replace(claim, resumed_at=claim.last_seq)
            return replace(state, pause=False, claim=claim)
        case CancelRequested():
            state = replace(state, cancel=CancelOrder(reason=event.reason), pause=False)
            return waits.with_grace(state, event.grace_due_us) if event.grace_due_us is not None else state
        case InstanceRetried():
            return waits.retried(state)
        case _:
            assert_never(event)
