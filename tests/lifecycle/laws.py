"""The invariants of the protocol, as an observer of one instance's life.

`Laws.check` is called after every decision with the state before it, the record and the decision; it keeps its own
simple model of what must be true and raises AssertionError, naming the law, when it is not.
"""

import msgspec

from runtara.engine.lifecycle import Decision, State, Status, effects, evolve, served
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
    CustomEvent,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFailed,
    InstancePaused,
    InstanceQueued,
    InstanceResumed,
    InstanceRetried,
    InstanceSuspended,
    PauseRequested,
    ResourcesUsed,
    SignalReceived,
    SleepStarted,
    StepFailed,
    TimerFired,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
)
from runtara.protocol.ids import FAILED_KEY
from runtara.protocol.records import AnyRecord, Cancel, Report, Resume, Suspended, TimerDue, Unreadable

REPORT_EVENTS = (
    CheckpointSaved, StepFailed, SleepStarted, WaitStarted, ChildRequested, WaitAbandoned, CompensationAdded,
    CustomEvent,
)  # fmt: skip
PARKS = (SleepStarted, WaitStarted, ChildRequested)
NEW = (CheckpointSaved, StepFailed, WaitAbandoned, CompensationAdded, CustomEvent)
OUTCOMES = (CheckpointSaved, CustomEvent, WaitResolved)
TERMINAL_EVENTS = (InstanceCompleted, InstanceFailed, InstanceCancelled)
AFTER_THE_END = (InstanceRetried, ChildCompleted, ChildFailed, WaitResolved)


class Laws:
    def __init__(self) -> None:
        self.nonces: dict[int, set[str]] = {}
        self.fired: set[int] = set()
        self.deadlines: dict[int, int] = {}
        self.due: dict[str, int | None] = {}
        self.cancelled = self.pausing = False
        self.mode = "normal"
        self.losses = 0
        self.attempt = 0
        self.received: list[tuple[int, str]] = []
        self.assigned: dict[str, int] = {}
        self.consumed: set[int] = set()
        self.memos: dict[str, tuple[int, AnyEvent]] = {}

    def check(
        self, before: State | None, record: AnyRecord, now: int, decision: Decision, log: list[tuple[int, AnyEvent]]
    ) -> None:
        state = before
        for event in decision.events:
            if state is not None:
                self._event(state, record, now, event)
                if isinstance(event, PARKS) and _is_new(state, event.key or ""):
                    self.losses = 0
            state = evolve(state, event)
            self._after(state, event)
        if state is None:
            return
        if before is not None:
            self._applied_or_ended(before, record, decision, state)
            self._control(before, record, decision, state)
        self._state(state)
        self._signals(state)
        if decision.events:
            self._memos(state, log)
        self._effects(state)

    # each event, against the state it met

    def _event(self, state: State, record: AnyRecord, now: int, event: AnyEvent) -> None:
        if state.status.is_terminal and not isinstance(event, ResourcesUsed):  # law 5
            assert isinstance(event, AFTER_THE_END), f"law 5: {event} after {state.status}"
            assert state.status is not Status.COMPLETED, f"law 5: {event} after the completion"
        if isinstance(event, CheckpointSaved) and event.key == FAILED_KEY and state.claim is None:  # the engine's own
            assert self.losses >= state.options.restarts, "law 14: given up with budget left"
            assert state.compensations, "law 14: undone with nothing to undo"
        elif isinstance(event, REPORT_EVENTS):  # laws 3 and 4
            claim = state.claim
            assert isinstance(record, Report), f"law 3: {event} from {record}"
            assert claim is not None, f"law 4: {event} without a claim"
            assert (claim.attempt, claim.nonce) == (record.attempt, record.nonce), f"law 3: {record} under {claim}"
            assert not claim.reserved, "law 3: a report under a reservation"
        match event:
            case InstanceQueued():
                assert event.attempt > self.attempt, "law 4: attempts increase"
            case AttemptStarted():
                self._claim(state, event)
            case TimerFired():
                assert isinstance(record, TimerDue), "law 12: a timer fires by its record"
                assert event.timer not in self.fired, "law 12: a timer fires once"
                assert event.timer in state.timers, "law 12: a foreign timer fired"
                assert now >= self.deadlines[event.timer], "law 12: a timer fired early"
                self.fired.add(event.timer)
            case InstanceSuspended():
                assert not self.cancelled, "law 13: suspended although it was cancelled"
            case InstancePaused():
                by_itself = isinstance(record, Suspended) and record.reason == "self"
                assert self.pausing or by_itself, "law 13: paused although nobody asks for it"
            case InstanceFailed() if not isinstance(record, Report) or isinstance(state.claim, type(None)):
                assert self.losses >= state.options.restarts, "law 14: failed with budget left"

    def _claim(self, state: State, event: AttemptStarted) -> None:
        takes_over = state.claim is not None and state.claim.reserved and event.attempt == state.attempt
        assert takes_over or state.claim is None, "law 3: a claim over a claim"
        assert takes_over or event.attempt >= self.attempt, "law 4: attempts increase"
        if self.cancelled and not takes_over:
            assert state.mode == "cancelling", "law 13: a normal attempt although it was cancelled"
        if not event.reserved:
            self.nonces.setdefault(event.attempt, set()).add(event.nonce)
            assert len(self.nonces[event.attempt]) == 1, "law 3: two nonces in one attempt"

    def _after(self, state: State, event: AnyEvent) -> None:
        for id, timer in state.timers.items():
            assert self.deadlines.setdefault(id, timer.due_us) == timer.due_us, "law 11: a deadline moved"
        self.attempt = max(self.attempt, state.attempt)
        match event:
            case SleepStarted() | WaitStarted():
                assert self.due.setdefault(event.key or "", event.due_us) == event.due_us, "law 11: a deadline moved"
            case SignalReceived():
                self.received.append((state.version, event.name))
            case WaitResolved() if event.signal is not None:
                self._assigned(state, event)
            case WaitAbandoned():
                self.assigned.pop(event.key or "", None)  # and then it must be pending again
            case AttemptLost():
                self.losses += event.counts
        if isinstance(event, NEW):
            self.losses = 0
        self._asked(event)

    def _asked(self, event: AnyEvent) -> None:
        match event:
            case CancelRequested():
                self.cancelled, self.pausing = True, False
            case PauseRequested():
                self.pausing = True
            case InstanceResumed():
                self.pausing = False
            case InstancePaused():
                self.pausing, self.losses = False, 0
            case InstanceSuspended():
                self.losses = 0
            case InstanceQueued() if event.mode == "cancelling" and self.mode == "normal":
                self.mode, self.losses = "cancelling", 0
            case InstanceRetried() | InstanceContinued():
                self.cancelled, self.mode = False, "normal"
                self.losses, self.due, self.memos = 0, {}, {}
                self.consumed |= set(self.assigned.values())
                self.assigned = {}

    def _assigned(self, state: State, event: WaitResolved) -> None:
        assert event.signal is not None
        assert event.signal not in self.assigned.values(), "law 10: a signal was given twice"
        name = dict(self.received)[event.signal]
        older = [s.version for s in state.pending.get(name, ()) if s.version < event.signal]
        assert not older, "law 10: a signal overtook another"
        self.assigned[event.key or ""] = event.signal

    # the whole decision

    def _applied_or_ended(self, before: State, record: AnyRecord, decision: Decision, after: State) -> None:
        claim = before.claim
        if not isinstance(record, Report | Unreadable) or claim is None or claim.reserved:
            return
        if (record.attempt, record.nonce) != (claim.attempt, claim.nonce) or decision.note in ("stale", "duplicate"):
            return
        assert decision.events, f"law 6: {record} had no effect"
        if after.claim is not None:
            assert record.seq == claim.last_seq + 1 == after.claim.last_seq, "law 6: a hole in the numbers"
        reports = [event for event in decision.events if isinstance(event, REPORT_EVENTS)]
        assert len(reports) <= 1, "law 6: one report, several report events"
        if after.claim is None and decision.note == "refused":
            assert isinstance(decision.events[0], AttemptLost), "law 6: a refusal must end the attempt"

    def _control(self, before: State, record: AnyRecord, decision: Decision, after: State) -> None:
        at_once = before.claim is None and not before.compensations
        if isinstance(record, Cancel) and decision.note == "applied" and at_once:
            assert after.status is Status.CANCELLED, "law 13: a cancel acts at once"
        if isinstance(record, Resume) and decision.note == "applied":
            assert after.status is not Status.PAUSED, "law 13: resumed but paused"
            assert not after.pause, "law 13: resumed but pausing"

    def _state(self, state: State) -> None:
        assert (state.status is Status.RUNNING) == (state.claim is not None), "law 4: running means one claim"
        if state.is_suspended:  # laws 8 and 9
            assert state.awaiting, "law 8: suspended on nothing"
            for key in state.awaiting:
                assert key in state.waits, f"law 9: a lost wake, {key} is decided"
                self._has_waker(state, key)
        if state.claim is not None and state.options.restarts > 0:
            assert self.losses < state.options.restarts, "law 14: running without budget"
        open_timers = {w.version for w in state.waits.values() if w.due_us is not None}
        if not state.status.is_terminal:
            assert open_timers <= set(state.timers), "law 8: a deadline without a timer"
        extra = {id for id in (state.restart_timer, state.grace_timer) if id is not None}
        assert set(state.timers) <= open_timers | extra, "law 12: a timer without a purpose"

    def _has_waker(self, state: State, key: str) -> None:
        wait = state.waits[key]
        match wait.kind:
            case "sleep" | "retry":
                assert wait.version in state.timers, f"law 8: {key} has no timer"
            case "signal":
                assert wait.name, f"law 8: {key} waits for nothing"
            case "child":
                assert key in state.children, f"law 8: {key} has no child"

    def _signals(self, state: State) -> None:
        if state.status is Status.COMPLETED:
            return
        pending = [signal.version for queue in state.pending.values() for signal in queue]
        assert len(set(pending)) == len(pending), "law 10: a signal is twice in the queue"
        for queue in state.pending.values():
            assert [s.version for s in queue] == sorted(s.version for s in queue), "law 10: signals out of order"
        held = {*pending, *self.assigned.values(), *self.consumed}
        lost = {version for version, _ in self.received} - held
        assert not lost, f"law 10: signals {lost} were lost"

    def _memos(self, state: State, log: list[tuple[int, AnyEvent]]) -> None:
        memos: dict[str, tuple[int, AnyEvent]] = {}
        abandoned = {event.key: version for version, event in served(state, log) if isinstance(event, WaitAbandoned)}
        for version, event in served(state, log):
            is_outcome = isinstance(event, OUTCOMES) or (isinstance(event, StepFailed) and event.due_us is None)
            if not is_outcome or event.key is None or version < abandoned.get(event.key, 0):
                continue
            assert event.key not in memos, f"law 7: two outcomes of {event.key}"
            memos[event.key] = (version, event)
        for key, memo in self.memos.items():
            if key not in abandoned:
                assert memos.get(key) == memo, f"law 7: the memo of {key} changed"
        self.memos = memos

    def _effects(self, state: State) -> None:
        owed = effects(state)
        if state.status is Status.QUEUED and not state.external:
            assert owed.run_request is not None or state.restart_timer in owed.timers, "law 8: queued for ever"
        if state.status is Status.RUNNING:
            assert owed.lease, "law 8: running without a lease"
        else:
            assert owed.control is None, "law 15: control for nobody"
        read = msgspec.json.decode(msgspec.json.encode(state), type=State)
        assert effects(read) == owed, "law 15: effects are not a function of the state"


def _is_new(state: State, key: str) -> bool:
    """Whether a park under `key` was not asked for before."""
    known = state.waits.get(key) or state.unseen.get(key)
    return known is None or known.kind == "retry"
