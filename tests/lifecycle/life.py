"""One instance's life for tests: sends records as the loop would, keeps the log, and knows the usual moves.

It does what the engine's loop does around `decide`: drops repeated commands, loads keys when they are needed.
"""

from collections.abc import Sequence

from msgspec import Raw

from runtara.engine.lifecycle import (
    Decision,
    State,
    Status,
    decide,
    evolve,
    fork_record,
    needs_keys,
    recorded_keys,
    with_keys,
)
from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import WireError
from runtara.protocol.events import AnyEvent
from runtara.protocol.records import (
    AnyRecord,
    Cancel,
    Checkpointed,
    ChildDone,
    ChildRequest,
    Command,
    Compensating,
    Completed,
    Options,
    Parked,
    Pause,
    Resume,
    Retry,
    Signal,
    Start,
    Started,
    StepFailure,
    Suspended,
    TimerDue,
    WorkerLost,
)
from runtara.protocol.subjects import Channel, Source

SECOND = 1_000_000
INSTANCE, TENANT = "order-1", "acme"
CLIENT = Source(Channel.COMMANDS, 0, TENANT, client="c1")
ENGINE = Source(Channel.ENGINE, 0)
RUNNER = Source(Channel.RUNNER, 0, TENANT, runner="r1")
CONTAINER = Source(Channel.REPORTS, 0, TENANT, instance=INSTANCE)
ERROR = WireError(code="ValueError", message="no")


def worker_source(worker: str) -> Source:
    return Source(Channel.REPORTS, 0, TENANT, worker=worker)


def raw(text: str) -> Raw:
    return Raw(text.encode())


class Life:
    """`state`, the whole `log` of (version, event), and the journal's clock `now`."""

    def __init__(self) -> None:
        self.state_or_none: State | None = None
        self.log: list[tuple[int, AnyEvent]] = []
        self.journal: list[tuple[AnyRecord, int, Source]] = []
        self.now = 1_000 * SECOND
        self.commands: set[str] = set()
        self._ids = 0

    @property
    def state(self) -> State:
        assert self.state_or_none is not None
        return self.state_or_none

    @property
    def status(self) -> Status:
        return self.state.status

    def is_now(self, status: Status) -> bool:
        """For a second look: a type checker does not know that `status` changes."""
        return self.state.status is status

    @property
    def types(self) -> list[str]:
        return [type(event).__name__ for _, event in self.log]

    def tell(self, record: AnyRecord, source: Source = CLIENT) -> Decision:
        """Decide `record` now, apply what was decided."""
        if isinstance(record, Command) and record.id in self.commands:
            return Decision(note="duplicate")
        self.journal.append((record, self.now, source))
        decision = decide(self.state_or_none, record, self.now, source=source)
        self.apply(decision.events)
        if isinstance(record, Command) and decision.events:
            self.commands.add(record.id)
        return decision

    def apply(self, events: Sequence[AnyEvent]) -> None:
        for event in events:
            self.state_or_none = evolve(self.state_or_none, event)
            self.log.append((self.state.version, event))
        if self.state_or_none is not None and needs_keys(self.state):
            self.state_or_none = with_keys(self.state, recorded_keys(self.state, self.log))

    def id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    # what others say

    def start(self, input: str = "{}", *, options: Options | None = None, workflow: str = "fulfil") -> Decision:
        return self.tell(Start(id=self.id(), instance=INSTANCE, workflow=workflow, input=raw(input), options=options))

    def signal(self, name: str = "approved", data: str = "1") -> Decision:
        return self.tell(Signal(id=self.id(), instance=INSTANCE, name=name, data=raw(data)))

    def pause(self) -> Decision:
        return self.tell(Pause(id=self.id(), instance=INSTANCE))

    def resume(self) -> Decision:
        return self.tell(Resume(id=self.id(), instance=INSTANCE))

    def cancel(self, reason: str | None = None) -> Decision:
        return self.tell(Cancel(id=self.id(), instance=INSTANCE, reason=reason))

    def retry(self) -> Decision:
        return self.tell(Retry(id=self.id(), instance=INSTANCE))

    def fire(self, timer: int | None = None) -> Decision:
        """Fire `timer`, or the next one that is due, at its time."""
        if timer is None:
            timer = min(self.state.timers, key=lambda id: self.state.timers[id].due_us)
        if timer in self.state.timers:
            self.now = max(self.now, self.state.timers[timer].due_us)
        return self.tell(TimerDue(instance=INSTANCE, tenant=TENANT, owner="e1", timer=timer), ENGINE)

    def lose(self) -> Decision:
        claim = self.state.claim
        assert claim is not None
        return self.tell(
            WorkerLost(instance=INSTANCE, tenant=TENANT, owner="e1", attempt=claim.attempt, worker=claim.worker), ENGINE
        )

    def child_done(self, key: str, *, status: str = "completed", child: str | None = None) -> Decision:
        record = ChildDone(
            instance=INSTANCE, id=self.id(), tenant=TENANT, key=key, status=status,  # type: ignore[arg-type]
            child=child or self.state.children[key].instance, result=raw("7"),
            error=None if status == "completed" else ERROR,
        )  # fmt: skip
        return self.tell(record, ENGINE)

    def forked(self, *, at: str | None = None, edits: dict[str, str] | None = None) -> "Life":
        """The life of a fork that is made now."""
        answers = {key: raw(value) for key, value in (edits or {}).items()}
        request = ForkRequest(id="fork-1", instance=INSTANCE, reply="", at_key=at, set=answers)
        record = fork_record(
            TENANT,
            "source",
            state=self.state,
            log=self.log,
            input=Carried(raw("{}")),
            labels={},
            hash=b"h",
            request=request,
        )
        fork = Life()
        fork.tell(record, ENGINE)
        return fork

    # what the worker says

    def claim(self, nonce: str = "n1", *, worker: str = "w1", attempt: int | None = None) -> Decision:
        record = Started(instance=INSTANCE, attempt=attempt or self.state.attempt, nonce=nonce, worker=worker)
        return self.tell(record, worker_source(worker))

    def running(self, *, options: Options | None = None) -> "Life":
        """Started and claimed by worker w1 under nonce n1."""
        self.start(options=options)
        self.claim()
        return self

    def report(self, cls: type, *, seq: int | None = None, **fields: object) -> Decision:
        """A report of the current claim, by default with the next seq."""
        claim = self.state.claim
        assert claim is not None
        number = claim.last_seq + 1 if seq is None else seq
        record = cls(instance=INSTANCE, attempt=claim.attempt, nonce=claim.nonce, seq=number, **fields)
        source = CONTAINER if claim.source.startswith("i.") else worker_source(claim.worker)
        return self.tell(record, source)

    def step(self, key: str, value: str = "1") -> Decision:
        return self.report(Checkpointed, key=key, data=raw(f'{{"kind":"step","value":{value}}}'))

    def report_saved(self, key: str, data: str) -> Decision:
        return self.report(Checkpointed, key=key, data=raw(data))

    def fail_step(self, key: str, *, n: int = 1, for_us: int | None = None) -> Decision:
        return self.report(StepFailure, key=key, n=n, error=ERROR, for_us=for_us)

    def sleep(self, key: str, seconds: float = 10) -> Decision:
        return self.report(Parked, key=key, kind="sleep", for_us=int(seconds * SECOND))

    def wait(self, key: str, name: str = "approved", *, seconds: float | None = None) -> Decision:
        for_us = None if seconds is None else int(seconds * SECOND)
        return self.report(Parked, key=key, kind="signal", name=name, for_us=for_us)

    def call(self, key: str, *, on_end: str = "cancel", workflow: str = "audit") -> Decision:
        child = ChildRequest(workflow=workflow, on_end=on_end)  # type: ignore[arg-type]
        return self.report(Parked, key=key, kind="child", child=child)

    def compensate(self, key: str) -> Decision:
        return self.report(Compensating, key=key, data=raw('{"fn":"refund"}'))

    def suspend(self, *keys: str, reason: str = "parked") -> Decision:
        return self.report(Suspended, reason=reason, keys=keys)

    def complete(self, result: str = '"done"') -> Decision:
        return self.report(Completed, result=raw(result))
