"""What events of claims, of queueing and of ends change in a state.

`state.version` is already that of the event, in every function here. Whatever ends a claim while it is held was
reported under it, except AttemptLost: so that report's seq is counted here.
"""

from typing import assert_never

from msgspec.structs import replace

from runtara.protocol.events import (
    AttemptLost,
    AttemptStarted,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFailed,
    InstancePaused,
    InstanceQueued,
    InstanceSuspended,
)
from runtara.protocol.messages import Status

from .evolve_waits import without
from .keyset import NONE, UNKNOWN
from .state import Claim, Launch, State, Timer

RESTARTED = "restarted"  # the reason of an AttemptLost whose source holds the next attempt
MAX_PAST = 16  # nonces of one container or script; it would have to restart that often while a record is under way
_CLOCK_KINDS = ("sleep", "retry")

Move = AttemptStarted | AttemptLost | InstanceQueued | InstanceSuspended | InstancePaused
End = InstanceContinued | InstanceCompleted | InstanceFailed | InstanceCancelled


def evolve(state: State, event: Move) -> State:
    match event:
        case AttemptStarted():
            return _started(state, event)
        case AttemptLost():
            return _lost(state, event)
        case InstanceQueued():
            return _queued(_off_queue(_claim_ended(state)), event)
        case InstanceSuspended():
            losses = 0 if state.claim is not None else state.losses
            by_clock = all(key in state.waits and state.waits[key].kind in _CLOCK_KINDS for key in event.keys)
            status = Status.SLEEPING if by_clock else Status.WAITING
            return replace(_claim_ended(state), status=status, awaiting=event.keys, losses=losses)
        case InstancePaused():
            state = _off_queue(_claim_ended(state))
            return replace(state, status=Status.PAUSED, awaiting=event.keys, pause=False, losses=0)
        case _:
            assert_never(event)


def evolve_end(state: State, event: End) -> State:
    state = _off_queue(_claim_ended(state))
    match event:
        case InstanceContinued():
            return replace(_emptied(state), floor=state.version, generation=state.generation + 1, keys=NONE)
        case InstanceCompleted():
            return replace(_emptied(state), status=Status.COMPLETED, pending={}, cancel=None, keys=UNKNOWN)
        case InstanceFailed():
            return replace(state, status=Status.FAILED, timers={}, keys=UNKNOWN, pause=False)
        case InstanceCancelled():
            return replace(state, status=Status.CANCELLED, timers={}, keys=UNKNOWN, pause=False)
        case _:
            assert_never(event)


def _started(state: State, event: AttemptStarted) -> State:
    claim = Claim(
        attempt=event.attempt, nonce=event.nonce, worker=event.worker, source=event.source, version=state.version,
        reserved=event.reserved, launch=_launch(state, event),
    )  # fmt: skip
    state = _off_queue(state)
    return replace(
        state,
        status=Status.RUNNING, attempt=event.attempt, claim=claim, external=event.external, awaiting=(), unseen={},
        requested=state.requested if event.external else None,
        undone=state.undone or state.mode == "cancelling",
    )  # fmt: skip


def _launch(state: State, event: AttemptStarted) -> Launch | None:
    """The runner's reservation behind the new claim, if its container took over or started again."""
    if event.reserved:
        return Launch(attempt=event.attempt, nonce=event.nonce, worker=event.worker, token=event.token)
    if state.claim is not None:
        return state.claim.launch
    ended = state.ended
    if ended is None or not ended.restarted or ended.launch is None:
        return None
    return ended.launch


def _lost(state: State, event: AttemptLost) -> State:
    claim = state.claim
    state = _ended(state, replace(claim, restarted=event.reason == RESTARTED)) if claim is not None else state
    counted = int(event.counts)
    return replace(state, status=Status.QUEUED, losses=state.losses + counted, restarts=state.restarts + counted)


def _queued(state: State, event: InstanceQueued) -> State:
    losses = state.losses if event.mode == state.mode else 0  # compensations have a budget of their own
    state = replace(
        state,
        status=Status.QUEUED, attempt=event.attempt, mode=event.mode, awaiting=(), queued_at=state.version,
        losses=losses,
    )  # fmt: skip
    if event.not_before_us is not None:
        timer = Timer(due_us=event.not_before_us, purpose="restart")
        return replace(state, timers={**state.timers, state.version: timer}, restart_timer=state.version)
    return state if state.external else replace(state, requested=event.attempt)


def _claim_ended(state: State) -> State:
    """By a report of its own, if there is one."""
    claim = state.claim
    return state if claim is None else _ended(state, replace(claim, last_seq=claim.last_seq + 1))


def _ended(state: State, claim: Claim) -> State:
    timers = state.timers if state.grace_timer is None else without(state.timers, state.grace_timer)
    past = state.past
    if state.external or claim.launch is not None:
        past = (*past[1 - MAX_PAST :], claim.nonce)
    return replace(state, claim=None, ended=claim, past=past, unseen={}, timers=timers, grace_timer=None)


def _off_queue(state: State) -> State:
    if state.restart_timer is None:
        return state
    return replace(state, timers=without(state.timers, state.restart_timer), restart_timer=None)


def _emptied(state: State) -> State:
    return replace(
        state,
        status=Status.QUEUED, waits={}, timers={}, unseen={}, children={}, compensations={}, undone=False, awaiting=(),
        losses=0, pause=False,
    )  # fmt: skip
