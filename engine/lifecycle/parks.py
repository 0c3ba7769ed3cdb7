"""Parks: durable operations that wait, and the instance leaving its process because of them.

Invariants: a park has one outcome, the first in journal order, and its deadline never moves; an instance is suspended
only on open parks, each of which something can end; one that cannot wait on what it names is queued again, not lost.
"""

from typing import assert_never

from runtara.protocol.errors import DuplicateKey, Malformed, RuntaraError
from runtara.protocol.events import (
    ChildRequested,
    InstancePaused,
    InstanceSuspended,
    SleepStarted,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
)
from runtara.protocol.ids import child_id, is_id
from runtara.protocol.records import ChildRequest, Parked, Suspended, Unparked

from .clock import absolute, deadline
from .decision import Decision, Draft
from .endings import end_attempt, lose, obey_cancel, requeue
from .evolve_waits import asked_before
from .reports import key_fault
from .state import PendingSignal, Resolution, State, Wait


def parked(state: State, record: Parked, now: int) -> Decision:
    known = asked_before(state, record.key)
    draft = Draft(state, record.instance, now)
    if known is not None:
        fault = _park_again(draft, record, known)
    else:
        fault = key_fault(state, record.key) or _park(draft, record)
    return draft.decision() if fault is None else end_attempt(state, record, now, fault)


def unparked(state: State, record: Unparked, now: int) -> Decision:
    key = record.key
    if key not in state.waits and key not in state.unseen:
        return end_attempt(state, record, now, Malformed(reason=f"{key!r} has its outcome already, or never waited"))
    given = state.unseen.get(key)
    draft = Draft(state, record.instance, now)
    draft.emit(WaitAbandoned(key=key))
    if given is not None and given.signal is not None and given.name is not None:
        hand_over(draft, given.name)
    return draft.decision()


def suspended(state: State, record: Suspended, now: int) -> Decision:
    draft = Draft(state, record.instance, now)
    still_open = tuple(dict.fromkeys(key for key in record.keys if key in state.waits))
    if state.mode == "cancelling":
        _leave_cancelling(draft, record)
    elif state.cancel is not None:
        obey_cancel(draft)
    elif state.pause or record.reason == "self":
        is_whole = len(still_open) == len(set(record.keys))  # else something was decided while it left: go on then
        draft.emit(InstancePaused(keys=still_open if is_whole else ()))
    elif record.reason == "parked":
        _leave_parked(draft, record, still_open)
    else:  # a pause that was taken back, or a hand-over: somebody else goes on
        requeue(draft, record.reason)
    return draft.decision()


def oldest_wait(state: State, name: str) -> str | None:
    """The key of the longest open wait for signal `name`."""
    return next((key for key, wait in state.waits.items() if wait.kind == "signal" and wait.name == name), None)


def hand_over(draft: Draft, name: str) -> str | None:
    """Give the oldest pending signal of `name` to the oldest wait for it; the key of that wait."""
    key, queue = oldest_wait(draft.state, name), draft.state.pending.get(name, ())
    if key is None or not queue:
        return None
    _give(draft, key, queue[0])
    return key


def _give(draft: Draft, key: str, signal: PendingSignal) -> None:
    draft.emit(WaitResolved(key=key, outcome="signal", signal=signal.version, data=signal.data, blob=signal.blob))


def _park(draft: Draft, record: Parked) -> RuntaraError | None:
    match record.kind:
        case "sleep":
            return _sleep(draft, record)
        case "signal":
            return _await_signal(draft, record)
        case "child":
            return _request_child(draft, record)
        case _:
            assert_never(record.kind)


def _sleep(draft: Draft, record: Parked) -> RuntaraError | None:
    due = _due(record, draft.now)
    if due is None:
        return Malformed(reason="a sleep needs for_us or until_us")
    draft.emit(SleepStarted(key=record.key, due_us=due))
    if due <= draft.now:
        draft.emit(WaitResolved(key=record.key, outcome="slept"))
    return None


def _await_signal(draft: Draft, record: Parked) -> RuntaraError | None:
    name, due = record.name, _due(record, draft.now)
    if name is None or not is_id(name):
        return Malformed(reason="the signal's name is not a legal id")
    draft.emit(WaitStarted(key=record.key, name=name, due_us=due))
    queue = draft.state.pending.get(name, ())
    if queue:
        _give(draft, record.key, queue[0])
    elif due is not None and due <= draft.now:
        draft.emit(WaitResolved(key=record.key, outcome="timeout"))
    return None


def _request_child(draft: Draft, record: Parked) -> RuntaraError | None:
    request = record.child
    if request is None or not is_id(request.workflow) or not (request.instance is None or is_id(request.instance)):
        return Malformed(reason="a child needs a workflow, and legal ids")
    child = _child(draft, record.key, request)
    draft.emit(ChildRequested(key=record.key, child=child, request=request))
    return None


def _child(draft: Draft, key: str, request: ChildRequest) -> str:
    """Its id: given, or derived from its cause. A later generation of the parent (retry, continue) has new children."""
    if request.instance is not None:
        return request.instance
    generation = draft.state.generation
    return child_id(draft.instance, f"{key}\n{generation}" if generation else key)


def _park_again(draft: Draft, record: Parked, known: Wait | Resolution) -> RuntaraError | None:
    """The same operation asks again; what was recorded stands, whatever duration it names now."""
    key = record.key
    if record.kind != known.kind or (known.kind == "signal" and record.name != known.name):
        return DuplicateKey(key=key)
    if known.kind == "sleep" and known.due_us is not None:
        draft.emit(SleepStarted(key=key, due_us=known.due_us))
    elif known.kind == "signal" and known.name is not None:
        draft.emit(WaitStarted(key=key, name=known.name, due_us=known.due_us))
    elif record.child is not None and known.name is not None:
        draft.emit(ChildRequested(key=key, child=known.name, request=record.child))
    else:
        return Malformed(reason="a child needs a workflow, and legal ids")
    return None


def _due(record: Parked, now: int) -> int | None:
    if record.for_us is not None:
        return deadline(now, record.for_us)
    return absolute(record.until_us) if record.until_us is not None else None


def _leave_parked(draft: Draft, record: Suspended, still_open: tuple[str, ...]) -> None:
    """Suspended if all it is blocked on is open; queued at once if one was decided while it left.

    One that names nothing that is or was open under its claim would come back at once, for ever: that counts as a loss.
    """
    if record.keys and len(still_open) == len(set(record.keys)):
        draft.emit(InstanceSuspended(keys=still_open))
    elif any(key in draft.state.unseen for key in record.keys):
        requeue(draft, "resolved")
    else:
        lose(draft, "suspended", "it is blocked on nothing that could wake it")


def _leave_cancelling(draft: Draft, record: Suspended) -> None:
    """Compensations run to their end in memory: only a hand-over is free, anything else counts as a loss."""
    if record.reason == "released":
        requeue(draft, "released")
    else:
        lose(draft, "suspended", "an instance that is being cancelled cannot be suspended")
