"""The invariants of the protocol, over lives that Hypothesis makes up.

It knows claims and stale claims, several workers, a runner with its container and a script; it repeats, reorders and
omits records, lets timers come early, and lets engines crash, so that the state goes through the database. Every
decision is held against `laws`, and every life is folded again at its end.
"""

from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtara.engine.lifecycle import State, Status, decide, evolve, needs_keys, recorded_keys, with_keys
from runtara.protocol.events import AnyEvent
from runtara.protocol.records import (
    Absent,
    AnyRecord,
    Cancelled,
    Checkpointed,
    ChildDone,
    ChildRequest,
    Command,
    Compensating,
    Completed,
    Continued,
    Custom,
    Exited,
    Failed,
    Log,
    Options,
    Parked,
    Progress,
    Registered,
    Report,
    Started,
    StepFailure,
    Suspended,
    TimerDue,
    Unparked,
    Unreadable,
    WorkerLost,
)
from runtara.protocol.subjects import Source
from tests.lifecycle.laws import Laws
from tests.lifecycle.life import CONTAINER, ENGINE, ERROR, INSTANCE, RUNNER, SECOND, TENANT, Life, raw, worker_source

KEYS = ("a", "b", "c", "d", "~undo/u")
NAMES = ("x", "y")
WORKERS = ("w1", "w2")
REASONS = ("parked", "parked", "pause", "released", "self")
SEQ = st.sampled_from(["next"] * 8 + ["again", "gap"])

KEY = st.sampled_from(KEYS)
RECORDED = st.one_of(
    st.builds(lambda key: (Checkpointed, {"key": key, "data": raw("1")}), KEY),
    st.builds(lambda key: (Custom, {"key": key, "name": "e"}), KEY),
    st.builds(lambda key: (Compensating, {"key": key, "data": raw("1")}), KEY),
    st.builds(
        lambda key, due: (StepFailure, {"key": key, "n": 1, "error": ERROR, "for_us": due}),
        KEY,
        st.sampled_from([None, 0, SECOND]),
    ),
)
PARKS = st.one_of(
    st.builds(
        lambda key, due: (Parked, {"key": key, "kind": "sleep", "for_us": due}), KEY, st.sampled_from([0, 3 * SECOND])
    ),
    st.builds(
        lambda key, name, due: (Parked, {"key": key, "kind": "signal", "name": name, "for_us": due}),
        KEY,
        st.sampled_from(NAMES),
        st.sampled_from([None, SECOND]),
    ),
    st.builds(
        lambda key, end: (Parked, {"key": key, "kind": "child", "child": ChildRequest(workflow="w", on_end=end)}),
        KEY,
        st.sampled_from(["cancel", "leave"]),
    ),
    st.builds(lambda key: (Unparked, {"key": key}), KEY),
)
ENDS = st.sampled_from(
    [
        (Completed, {}),
        (Failed, {"error": ERROR}),
        (Cancelled, {}),
        (Continued, {"input": raw("{}")}),
        (Unreadable, {"reason": "bad"}),
    ]
)


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.laws = Laws()
        self.claims: list[tuple[int, str, Source]] = []
        self.applied: list[tuple[AnyRecord, Source]] = []
        self.nonces = 0

    def tell(self, record: AnyRecord, source: Source) -> None:
        before = self.life.state_or_none
        decision = self.life.tell(record, source)
        self.laws.check(before, record, self.life.now, decision, self.life.log)
        is_best_effort = isinstance(record, Progress | Log)  # nobody sends those again
        if decision.events and decision.note != "stale" and not is_best_effort:
            self.applied.append((record, source))

    def nonce(self) -> str:
        self.nonces += 1
        return f"n{self.nonces}"

    @property
    def state(self) -> State:
        return self.life.state

    @initialize(restarts=st.sampled_from([1, 2, 5]), script=st.booleans())
    def begin(self, restarts: int, script: bool) -> None:
        if script:
            self.register("w1")
        else:
            self.life.start(options=Options(restarts=restarts))

    # claims

    @rule(worker=st.sampled_from(WORKERS), older=st.sampled_from([0, 0, 0, 1]))
    def claim(self, worker: str, older: int) -> None:
        attempt, nonce, source = self.state.attempt - older, self.nonce(), worker_source(worker)
        self.claims.append((attempt, nonce, source))
        self.tell(Started(instance=INSTANCE, attempt=attempt, nonce=nonce, worker=worker), source)

    @rule()
    def reserve(self) -> None:
        record = Started(
            instance=INSTANCE, attempt=self.state.attempt, nonce=self.nonce(), worker="box", by="runner", token="t"
        )
        self.tell(record, RUNNER)

    @rule(token=st.sampled_from(["t", "t", "other"]), older=st.sampled_from([0, 0, 1]))
    def container_speaks(self, token: str, older: int) -> None:
        launch = self.state.claim.launch if self.state.claim is not None else None
        attempt = (launch.attempt if launch is not None else self.state.attempt) - older
        nonce = self.nonce()
        self.claims.append((attempt, nonce, CONTAINER))
        self.tell(Started(instance=INSTANCE, attempt=attempt, nonce=nonce, worker="box", token=token), CONTAINER)

    @rule(worker=st.sampled_from(WORKERS))
    def register(self, worker: str) -> None:
        nonce, source = self.nonce(), worker_source(worker)
        self.claims.append((0, nonce, source))
        workflow = self.state.workflow if self.life.state_or_none is not None else "fulfil"
        self.tell(Registered(instance=INSTANCE, workflow=workflow, worker=worker, nonce=nonce), source)

    # reports

    def report(self, cls: type, fields: dict[str, Any], seq: str) -> None:
        claim = self.state.claim
        assert claim is not None
        number = {"next": claim.last_seq + 1, "again": claim.last_seq, "gap": claim.last_seq + 2}[seq]
        source = CONTAINER if claim.source.startswith("i.") else worker_source(claim.worker)
        self.tell(cls(instance=INSTANCE, attempt=claim.attempt, nonce=claim.nonce, seq=number, **fields), source)

    @precondition(lambda self: self.state.claim is not None)
    @rule(report=RECORDED, seq=SEQ)
    def record_something(self, report: tuple[type, dict[str, Any]], seq: str) -> None:
        self.report(*report, seq)

    @precondition(lambda self: self.state.claim is not None)
    @rule(report=PARKS, seq=SEQ)
    def park(self, report: tuple[type, dict[str, Any]], seq: str) -> None:
        self.report(*report, seq)

    @precondition(lambda self: self.state.claim is not None)
    @rule(report=ENDS, seq=SEQ)
    def end(self, report: tuple[type, dict[str, Any]], seq: str) -> None:
        self.report(*report, seq)

    @precondition(lambda self: self.state.claim is not None)
    @rule(reason=st.sampled_from(REASONS), data=st.data(), mistaken=st.sampled_from([False, False, False, True]))
    def suspend(self, reason: str, data: st.DataObject, mistaken: bool) -> None:
        known = [*self.state.waits, *self.state.unseen, *(["nothing"] if mistaken else [])]
        keys = tuple(data.draw(st.lists(st.sampled_from(known), unique=True))) if known else ()
        self.report(Suspended, {"reason": reason, "keys": keys or tuple(self.state.waits)}, "next")

    # moves that make sense only together, and that chance would rarely find

    def fresh(self, kind: str, **fields: object) -> str:
        self.nonces += 1
        key = f"k{self.nonces}"
        self.report(Parked, {"key": key, "kind": kind, **fields}, "next")
        return key

    @precondition(lambda self: self.state.claim is not None)
    @rule(kinds=st.lists(st.sampled_from(["sleep", "signal", "child"]), min_size=1, max_size=2))
    def fall_asleep(self, kinds: list[str]) -> None:
        keys = []
        for kind in kinds:
            if self.state.claim is not None:
                child = ChildRequest(workflow="w")
                keys.append(self.fresh(kind, for_us=3 * SECOND, name="x", child=child))
        if self.state.claim is not None:
            self.report(Suspended, {"reason": "parked", "keys": tuple(keys)}, "next")

    @precondition(lambda self: self.state.claim is not None)
    @rule(name=st.sampled_from(NAMES))
    def give_a_wait_up(self, name: str) -> None:
        key = self.fresh("signal", name=name)
        self.signal(name)
        if self.state.claim is not None:
            self.report(Unparked, {"key": key}, "next")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seq=st.integers(0, 4), report=RECORDED | ENDS)
    def zombie_writes(self, data: st.DataObject, seq: int, report: tuple[type, dict[str, Any]]) -> None:
        attempt, nonce, source = data.draw(st.sampled_from(self.claims))
        if self.state.claim is not None and self.state.claim.nonce == nonce:
            return
        cls, fields = report
        before = len(self.life.log)
        self.tell(cls(instance=INSTANCE, attempt=attempt, nonce=nonce, seq=seq, **fields), source)
        assert len(self.life.log) == before, "law 3: a zombie wrote"

    @precondition(lambda self: self.state.claim is not None)
    @rule()
    def observe(self) -> None:
        claim = self.state.claim
        assert claim is not None
        for cls, fields in ((Progress, {"done": 1}), (Log, {"level": "info", "message": "m"})):
            self.tell(
                cls(instance=INSTANCE, attempt=claim.attempt, nonce=claim.nonce, **fields), worker_source(claim.worker)
            )

    # the world

    @precondition(lambda self: self.state.timers)
    @rule(data=st.data(), early=st.sampled_from([False, False, True]))
    def fire(self, data: st.DataObject, early: bool) -> None:
        timer = data.draw(st.sampled_from(sorted(self.state.timers)))
        due = self.state.timers[timer].due_us
        if not early:
            self.life.now = max(self.life.now, due)
        self.tell(TimerDue(instance=INSTANCE, tenant=TENANT, owner="e", timer=timer), ENGINE)

    @rule(timer=st.integers(0, 30))
    def fire_whatever(self, timer: int) -> None:
        self.tell(TimerDue(instance=INSTANCE, tenant=TENANT, owner="e", timer=timer), ENGINE)

    @rule(name=st.sampled_from(NAMES))
    def signal(self, name: str) -> None:
        self.command(self.life.signal, name)

    @rule(command=st.sampled_from(["pause", "resume", "pause", "resume", "cancel", "retry"]))
    def ask(self, command: str) -> None:
        self.command(getattr(self.life, command))

    def command(self, send: Any, *arguments: str) -> None:
        before = self.life.state_or_none
        decision = send(*arguments)
        record, _, source = self.life.journal[-1]
        self.laws.check(before, record, self.life.now, decision, self.life.log)
        if decision.events:
            self.applied.append((record, source))

    @precondition(lambda self: self.state.children)
    @rule(data=st.data(), status=st.sampled_from(["completed", "failed", "cancelled", "refused"]))
    def child_ends(self, data: st.DataObject, status: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.state.children)))
        record = ChildDone(
            instance=INSTANCE, id="o", tenant=TENANT, key=key, child=self.state.children[key].instance,
            status=status,  # type: ignore[arg-type]
        )  # fmt: skip
        self.tell(record, ENGINE)

    @precondition(lambda self: self.state.claim is not None)
    @rule(cls=st.sampled_from([Exited, WorkerLost, Absent]), older=st.sampled_from([0, 0, 1]))
    def lose(self, cls: type, older: int) -> None:
        claim = self.state.claim
        assert claim is not None
        named = {"instance": INSTANCE, "attempt": claim.attempt - older, "worker": claim.worker}
        if cls is Exited:
            self.tell(Exited(**named, reason="137", memory_bytes=7), RUNNER)  # type: ignore[arg-type]
        else:
            self.tell(cls(**named, tenant=TENANT, owner="e"), ENGINE)

    # faults of the platform

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """Law 2: whatever had its effect has none when it comes again, however late."""
        record, source = data.draw(st.sampled_from(self.applied))
        before = len(self.life.log)
        decision = self.life.tell(record, source)
        assert len(self.life.log) == before, f"law 2: {record} again gave {decision.events}"

    @rule()
    def engine_crashes(self) -> None:
        """The state goes through the database; what is not in its row is read from the log."""
        self.life.state_or_none = reloaded(self.state, self.life.log)

    @invariant()
    def the_log_gives_the_state(self) -> None:
        """Law 1, without the keys, which are checked on reloading."""
        state: State | None = None
        for _, event in self.life.log:
            state = evolve(state, event)
        if state is not None:
            assert msgspec.structs.replace(state, keys=self.state.keys) == self.state, "law 1: replay differs"
            if not state.status.is_terminal:
                assert set(recorded_keys(state, self.life.log)) == set(self.state.keys), "law 1: keys differ"

    def teardown(self) -> None:
        """Law 1: folding the journal again, with a crash after every third record, gives the same log."""
        state, log, commands = None, list[tuple[int, AnyEvent]](), set[str]()
        for number, (record, now, source) in enumerate(self.life.journal):
            if isinstance(record, Command) and record.id in commands:
                continue
            decision = decide(state, record, now, source=source)
            for event in decision.events:
                state = evolve(state, event)
                log.append((state.version, event))
            if isinstance(record, Command) and decision.events:
                commands.add(record.id)
            if state is not None and (number % 3 == 0 or needs_keys(state)):
                state = reloaded(state, log)
        assert log == self.life.log, "law 1: the journal, folded again, gives another log"


def reloaded(state: State, log: list[tuple[int, AnyEvent]]) -> State:
    read = msgspec.json.decode(msgspec.json.encode(state), type=State)
    return with_keys(read, recorded_keys(read, log)) if needs_keys(read) else read


def test_lives_obey_the_laws() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_laws_cover_what_matters() -> None:
    """Terminal states and reports are named once, in the protocol; the laws must not forget any."""
    assert {status for status in Status if status.is_terminal} == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    assert issubclass(Checkpointed, Report)
