"""What people ask of an instance: pause, resume, cancel, retry.

Invariants: a cancel cannot be taken back and acts at once on whatever does not run; a pause can, until it is obeyed;
a request that changes nothing has no event; one that makes no sense names the state it met.
"""

from runtara.protocol.errors import IllegalTransition
from runtara.protocol.events import (
    CancelRequested,
    InstancePaused,
    InstanceResumed,
    InstanceRetried,
    InstanceSuspended,
    PauseRequested,
)
from runtara.protocol.limits import CANCEL_GRACE_SECONDS
from runtara.protocol.messages import Status
from runtara.protocol.records import Cancel, ChildDone, Pause, Resume, Retry

from .clock import SECOND, deadline
from .decision import DUPLICATE, Decision, Draft, refused
from .endings import obey_cancel, requeue
from .state import State
from .wakes import end_child


def pause(state: State, record: Pause, now: int) -> Decision:
    if state.status.is_terminal or state.cancel is not None:
        return _illegal(state, record)
    if state.pause or state.status is Status.PAUSED:
        return DUPLICATE
    draft = Draft(state, record.instance, now)
    draft.emit(PauseRequested(reason=record.reason))
    if state.claim is None:
        draft.emit(InstancePaused(keys=state.awaiting))
    return draft.decision()


def resume(state: State, record: Resume, now: int) -> Decision:
    """What it awaited when it was paused may be decided by now; else it goes back to waiting."""
    if state.status is not Status.PAUSED and not state.pause:
        return _illegal(state, record)
    draft = Draft(state, record.instance, now)
    draft.emit(InstanceResumed())
    if state.claim is not None:
        return draft.decision()
    if state.awaiting and all(key in state.waits for key in state.awaiting):
        draft.emit(InstanceSuspended(keys=state.awaiting))
    else:
        requeue(draft, "resumed")
    return draft.decision()


def cancel(state: State, record: Cancel, now: int) -> Decision:
    if state.status.is_terminal:
        return DUPLICATE if state.status is Status.CANCELLED else _illegal(state, record)
    if state.cancel is not None:
        return DUPLICATE
    draft = Draft(state, record.instance, now)
    if state.claim is not None:
        grace = deadline(now, CANCEL_GRACE_SECONDS * SECOND)
        draft.emit(CancelRequested(reason=record.reason, grace_due_us=grace))
    else:
        draft.emit(CancelRequested(reason=record.reason))
        obey_cancel(draft)
    return draft.decision()


def retry(state: State, record: Retry, now: int) -> Decision:
    """Failures are forgotten, everything else stays. After compensations that would be a lie: fork instead."""
    if state.status not in (Status.FAILED, Status.CANCELLED):
        return _illegal(state, record)
    if state.undone:
        instead = f"fork it instead (`runtara fork {record.instance}`)"
        return _illegal(state, record, f"{state.status.value} and its compensations have run; {instead}")
    draft = Draft(state, record.instance, now)
    for key, child in state.children.items():
        if child.cancel:  # it was cancelled with its parent; the retry starts another
            gone = ChildDone(
                instance=record.instance, id=record.id, tenant="", key=key, child=child.instance, status="cancelled"
            )
            end_child(draft, key, gone)
    draft.emit(InstanceRetried())
    requeue(draft, "retry")
    return draft.decision()


def _illegal(state: State, record: Pause | Resume | Cancel | Retry, status: str | None = None) -> Decision:
    if status is None:
        status = "being cancelled" if state.cancel and not state.status.is_terminal else state.status.value
    command = type(record).__name__.lower()
    return refused(IllegalTransition(instance=record.instance, status=status, command=command))
