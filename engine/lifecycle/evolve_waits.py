"""What events of parks, timers, signals and children change in a state.

`state.version` is already that of the event, in every function here.
"""

from typing import TypeVar, assert_never

from msgspec.structs import replace

from runtara.protocol.events import (
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    SignalReceived,
    SleepStarted,
    StepFailed,
    TimerFired,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
)
from runtara.protocol.ids import UNDO_PREFIX
from runtara.protocol.messages import Status

from .keyset import UNKNOWN, key_hash
from .state import Child, PendingSignal, Resolution, State, Timer, Wait

MAX_UNSEEN = 64  # the newest outcomes told again with each heartbeat; parked code also asks by itself

_K = TypeVar("_K")
_V = TypeVar("_V")
Park = SleepStarted | WaitStarted | ChildRequested


def evolve(state: State, event: Park | WaitResolved | WaitAbandoned) -> State:
    key = event.key or ""
    match event:
        case SleepStarted() | WaitStarted() | ChildRequested():
            if asked_before(state, key) is not None:  # neither its deadline nor its place moves
                return seq_taken(state)
            return _parked(replace(reported(state), keys=state.keys.add(key_hash(key))), key, event)
        case WaitResolved():
            return _resolved(state, key, event)
        case WaitAbandoned():
            return _abandoned(reported(state), key)
        case _:
            assert_never(event)


def evolve_cause(state: State, event: TimerFired | SignalReceived | ChildCompleted | ChildFailed) -> State:
    match event:
        case TimerFired():
            return _timer_fired(state, event)
        case SignalReceived():
            signal = PendingSignal(version=state.version, data=event.data.copy(), blob=event.blob)
            queue = (*state.pending.get(event.name, ()), signal)
            return replace(state, pending={**state.pending, event.name: queue})
        case ChildCompleted() | ChildFailed():
            return replace(state, children=without(state.children, event.key or ""))
        case _:
            assert_never(event)


def asked_before(state: State, key: str) -> Wait | Resolution | None:
    """The park under `key` that is open, or was decided without its resident attempt knowing."""
    known = state.waits.get(key) or state.unseen.get(key)
    return known if known is not None and known.kind != "retry" else None


def seq_taken(state: State) -> State:
    """A numbered report was applied."""
    claim = state.claim
    return state if claim is None else replace(state, claim=replace(claim, last_seq=claim.last_seq + 1))


def reported(state: State) -> State:
    """A numbered report was applied and left something new behind: the row of losses is broken."""
    state = seq_taken(state)
    return replace(state, losses=0) if state.losses else state


def closed(state: State, key: str) -> State:
    """`key` waits for nothing any more."""
    wait = state.waits.get(key)
    if wait is None:
        return state
    return replace(state, waits=without(state.waits, key), timers=without(state.timers, wait.version))


def step_failed(state: State, event: StepFailed, key: str) -> State:
    """A failed try pauses until the next is due; the last one's failure answers the key."""
    state = closed(state, key)
    if key.startswith(UNDO_PREFIX):
        state = replace(state, undone=True)
    if event.due_us is None:
        return replace(state, keys=state.keys.add(key_hash(key)))
    return _opened(state, key, Wait(kind="retry", version=state.version, due_us=event.due_us))


def with_grace(state: State, due_us: int) -> State:
    timer = Timer(due_us=due_us, purpose="grace")
    return replace(state, timers={**state.timers, state.version: timer}, grace_timer=state.version)


def retried(state: State) -> State:
    """A new generation of a failed instance: open waits go on, forgotten keys are read again from the log."""
    timers = {w.version: timer for key, w in state.waits.items() if (timer := _timer(key, w)) is not None}
    return replace(
        state,
        status=Status.QUEUED, mode="normal", cancel=None, pause=False, losses=0, awaiting=(), timers=timers,
        keys=UNKNOWN, retried=state.version, generation=state.generation + 1,
    )  # fmt: skip


def _parked(state: State, key: str, event: Park) -> State:
    match event:
        case SleepStarted():
            return _opened(state, key, Wait(kind="sleep", version=state.version, due_us=event.due_us))
        case WaitStarted():
            wait = Wait(kind="signal", version=state.version, due_us=event.due_us, name=event.name)
            return _opened(state, key, wait)
        case ChildRequested():
            child = Child(instance=event.child, cancel=event.request.on_end == "cancel")
            state = replace(state, children={**state.children, key: child})
            return _opened(state, key, Wait(kind="child", version=state.version, name=event.child))
        case _:
            assert_never(event)


def _opened(state: State, key: str, wait: Wait) -> State:
    state = closed(state, key)
    timer = _timer(key, wait)
    timers = {**state.timers, wait.version: timer} if timer is not None else state.timers
    return replace(state, waits={**state.waits, key: wait}, timers=timers)


def _timer(key: str, wait: Wait) -> Timer | None:
    if wait.due_us is None or wait.kind == "child":
        return None
    return Timer(due_us=wait.due_us, purpose=wait.kind, key=key)


def _resolved(state: State, key: str, event: WaitResolved) -> State:
    wait = state.waits.get(key)
    if wait is None:
        return state
    signal: PendingSignal | None = None
    if event.signal is not None and wait.name is not None:
        signal = PendingSignal(version=event.signal, data=event.data.copy(), blob=event.blob)
        state = _taken(state, wait.name, event.signal)
    state = closed(state, key)
    told = Resolution(version=state.version, kind=wait.kind, due_us=wait.due_us, name=wait.name, signal=signal)
    return _told_later(state, key, told)


def _taken(state: State, name: str, version: int) -> State:
    """The signal `version` is no longer pending."""
    rest = tuple(signal for signal in state.pending.get(name, ()) if signal.version != version)
    pending = {**state.pending, name: rest} if rest else without(state.pending, name)
    return replace(state, pending=pending)


def _told_later(state: State, key: str, resolution: Resolution) -> State:
    if state.claim is None:  # the next claim is answered with the history
        return state
    unseen = {**without(state.unseen, key), key: resolution}
    if len(unseen) > MAX_UNSEEN:
        unseen.pop(next(iter(unseen)))
    return replace(state, unseen=unseen)


def _abandoned(state: State, key: str) -> State:
    """The wait is over without an outcome; a signal it had been given is the first in its queue again."""
    given = state.unseen.get(key)
    state = closed(state, key)
    if given is None:
        return state
    state = replace(state, unseen=without(state.unseen, key))
    if given.signal is None or given.name is None:
        return state
    queue = sorted((given.signal, *state.pending.get(given.name, ())), key=lambda signal: signal.version)
    return replace(state, pending={**state.pending, given.name: tuple(queue)})


def _timer_fired(state: State, event: TimerFired) -> State:
    timer = state.timers.get(event.timer)
    state = replace(state, timers=without(state.timers, event.timer))
    if timer is None:
        return state
    match timer.purpose:
        case "restart":
            return replace(state, restart_timer=None, requested=state.attempt, queued_at=state.version)
        case "grace":
            return replace(state, grace_timer=None)
        case "retry":
            key = timer.key or ""
            state = closed(state, key)
            return _told_later(state, key, Resolution(version=state.version, kind="retry"))
        case "sleep" | "signal":  # WaitResolved follows
            return state
        case _:
            assert_never(timer.purpose)


def without(entries: dict[_K, _V], key: _K) -> dict[_K, _V]:
    if key not in entries:
        return entries
    return {k: v for k, v in entries.items() if k != key}
