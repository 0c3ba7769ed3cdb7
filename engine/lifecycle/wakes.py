"""What happens to a waiting instance from outside: timers, signals, and the ends of children.

Invariants: a timer fires once, not before it is due by the journal's clock; a signal is received once and given to
one wait at most; whatever resolves a key that a suspended instance awaits queues it in the same decision.
"""

from typing import assert_never

from runtara.protocol.errors import IllegalTransition, Malformed, TooManySignals, WireError
from runtara.protocol.events import ChildCompleted, ChildFailed, SignalReceived, TimerFired, WaitResolved
from runtara.protocol.ids import is_id
from runtara.protocol.limits import MAX_PENDING_SIGNAL_BYTES, MAX_PENDING_SIGNALS
from runtara.protocol.messages import Status
from runtara.protocol.records import ChildDone, Signal, TimerDue

from .decision import STALE, Decision, Draft, refused
from .endings import lose, requeue
from .parks import hand_over, oldest_wait
from .reports import clean
from .state import State


def timer_fired(state: State | None, record: TimerDue, now: int) -> Decision:
    timer = state.timers.get(record.timer) if state is not None else None
    if state is None or timer is None or now < timer.due_us:
        return STALE
    draft = Draft(state, record.instance, now)
    draft.emit(TimerFired(timer=record.timer, key=timer.key if timer.purpose == "retry" else None))
    match timer.purpose:
        case "restart":
            pass
        case "grace":
            lose(draft, "cancelled", "it did not stop within the time allowed", counts=False)
        case "retry":
            _wake(draft, timer.key, "timer")
        case "sleep":
            draft.emit(WaitResolved(key=timer.key, outcome="slept"))
            _wake(draft, timer.key, "timer")
        case "signal":
            draft.emit(WaitResolved(key=timer.key, outcome="timeout"))
            _wake(draft, timer.key, "timer")
        case _:
            assert_never(timer.purpose)
    return draft.decision()


def signal(state: State, record: Signal, now: int) -> Decision:
    if state.status.is_terminal:
        return refused(IllegalTransition(instance=record.instance, status=state.status.value, command="signal"))
    if not is_id(record.name):
        return refused(Malformed(reason="the signal's name is not a legal id"))
    if oldest_wait(state, record.name) is None and _is_full(state, len(bytes(record.data))):
        return refused(TooManySignals(instance=record.instance, limit=MAX_PENDING_SIGNALS))
    draft = Draft(state, record.instance, now)
    draft.emit(SignalReceived(name=record.name, data=record.data, blob=record.blob))
    _wake(draft, hand_over(draft, record.name), "signal")
    return draft.decision()


def child_done(state: State | None, record: ChildDone, now: int) -> Decision:
    """Also kept by a failed or cancelled parent: a retry of it then finds the outcome."""
    child = state.children.get(record.key) if state is not None else None
    if state is None or child is None or child.instance != record.child or state.status is Status.COMPLETED:
        return STALE
    draft = Draft(state, record.instance, now)
    resolved = end_child(draft, record.key, record)
    _wake(draft, resolved, "child")
    return draft.decision()


def end_child(draft: Draft, key: str, outcome: ChildDone) -> str | None:
    """Record a child's end; the key of the wait it resolved, if that is still open."""
    error: WireError | None = None
    if outcome.status == "completed":
        draft.emit(ChildCompleted(key=key, child=outcome.child, result=outcome.result, blob=outcome.blob))
    else:
        error = clean(outcome.error or _silent(outcome))
        draft.emit(ChildFailed(key=key, child=outcome.child, status=outcome.status, error=error))
    wait = draft.state.waits.get(key)
    if wait is None or wait.kind != "child":
        return None
    draft.emit(WaitResolved(key=key, outcome="child", data=outcome.result, blob=outcome.blob, error=error))
    return key


def _silent(outcome: ChildDone) -> WireError:
    code = "ChildCancelled" if outcome.status == "cancelled" else "ChildFailed"
    return WireError(
        code=code,
        message=f"child {outcome.child} ({outcome.key!r}) ended as {outcome.status}",
        attributes={"key": outcome.key, "instance": outcome.child, "type": outcome.status, "message": ""},
    )


def _wake(draft: Draft, key: str | None, cause: str) -> None:
    if draft.state.is_suspended and key in draft.state.awaiting:
        requeue(draft, cause)


def _is_full(state: State, size: int) -> bool:
    waiting = [signal for queue in state.pending.values() for signal in queue]
    held = sum(len(bytes(signal.data)) for signal in waiting)
    return len(waiting) >= MAX_PENDING_SIGNALS or (bool(waiting) and held + size > MAX_PENDING_SIGNAL_BYTES)
