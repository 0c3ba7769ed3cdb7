"""The engine's loop over a journal in memory: every record is decided in order, and what it lets out is handed back.

It is the synchronous core: no event loop, no randomness, no wall clock. `append` puts a record into the journal at
`clock`'s time, `fold` decides what has come since and returns what leaves, in order. Whoever drops what was returned
is an engine that died before its effects; whoever never folds is one that is down.

Invariants: one order, one decider; commands to other instances go through the same journal, behind what caused them;
a repeated command is answered again; what the engine says by itself counts only under the last owner's token.
"""

from difflib import get_close_matches
from typing import Final

import msgspec

from runtara.protocol.api import Registration
from runtara.protocol.errors import RuntaraError, UnknownWorkflow
from runtara.protocol.events import AnyEvent, AttemptLost, InstanceCreated, blob_named
from runtara.protocol.messages import ClaimAnswer, CommandAnswer, CommitAnswer, Control, Done, RunRequest, Superseded
from runtara.protocol.records import (
    OF_NO_INSTANCE,
    Absent,
    AnyRecord,
    ChildDone,
    Command,
    Fork,
    Owner,
    Record,
    Registered,
    Report,
    Start,
    Started,
    TimerDue,
    WorkerLost,
    WorkflowForgotten,
    WorkflowRegistered,
)
from runtara.protocol.subjects import Channel, Source

from ..lifecycle import (
    Claim,
    Decision,
    State,
    check_envelope,
    decide,
    effects,
    outbox_commands,
    start_unknown,
    version_fault,
    with_registration,
)
from .blobs import MemoryBlobs
from .clock import VirtualClock
from .control import control_messages
from .rows import Row, claimed, done_of, run_request

PARTITION: Final = 0
PARTITIONS: Final = 1
TOKEN: Final = "memory"
ENGINE: Final = Source(Channel.ENGINE, PARTITION)
Id = tuple[str, str]  # tenant, instance


class RunDue(msgspec.Struct, frozen=True):
    """An attempt waits for a worker."""

    request: RunRequest


class Withdrawn(msgspec.Struct, frozen=True):
    """If its request was not taken yet, it must not be."""

    tenant: str
    instance: str
    attempt: int


class ToWorker(msgspec.Struct, frozen=True):
    tenant: str
    worker: str
    message: Control


class Answer(msgspec.Struct, frozen=True):
    reply: str
    message: CommandAnswer | CommitAnswer | ClaimAnswer


class Ended(msgspec.Struct, frozen=True):
    """A hint for those who wait for a result."""

    tenant: str
    instance: str
    done: Done


Out = RunDue | Withdrawn | ToWorker | Answer | Ended


class Entry(msgspec.Struct, frozen=True):
    """A record in the journal."""

    sequence: int
    time_us: int
    source: Source
    record: AnyRecord


class MemoryEngine:
    """`rejected` are the records that were refused and answered to nobody, with the reason."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.blobs = MemoryBlobs(clock)
        self.journal: list[Entry] = []
        self.rows: dict[Id, Row] = {}
        self.workflows: dict[Id, WorkflowRegistered] = {}
        self.rejected: list[tuple[AnyRecord, RuntaraError]] = []
        self._cursor = 0
        self._offset = 0
        self._owner = ""
        self._obeyed: set[tuple[str, str, str]] = set()
        self._timers: dict[tuple[str, str, int], int] = {}
        self._proposed: set[tuple[str, str, int]] = set()
        self._out: list[Out] = []
        self.append(ENGINE, Owner(instance="", token=TOKEN))

    # the journal

    def append(self, source: Source, record: AnyRecord) -> int:
        """Store a record; its sequence, from 1."""
        entry = Entry(len(self.journal) + 1, self.clock.now_us(), source, record)
        self.journal.append(entry)
        return entry.sequence

    def register(self, tenant: str, registration: Registration) -> None:
        """From here on the workflow can be started."""
        record = WorkflowRegistered(
            instance="", tenant=tenant, at=self.clock.now_us(), **msgspec.structs.asdict(registration)
        )
        self.append(ENGINE, record)

    def next_due(self) -> int | None:
        """When the first pending timer is due, of those that were not proposed yet."""
        return min((due for timer, due in self._timers.items() if timer not in self._proposed), default=None)

    def propose_timers(self) -> None:
        """Say of every timer that is due that it is: `decide` has the word."""
        now = self.clock.now_us()
        due = [item for item in self._timers.items() if item[1] <= now and item[0] not in self._proposed]
        for (tenant, instance, version), _ in sorted(due, key=lambda item: item[1]):
            self._proposed.add((tenant, instance, version))
            self.append(ENGINE, TimerDue(instance=instance, tenant=tenant, owner=TOKEN, timer=version))

    def lose_worker(self, tenant: str, worker: str, reason: str) -> None:
        """Say of everything that `worker` holds that it is gone."""
        for row in self.rows.values():
            claim = row.state.claim
            if row.tenant == tenant and claim is not None and claim.worker == worker:
                self.append(
                    ENGINE,
                    WorkerLost(
                        instance=row.instance, tenant=tenant, owner=TOKEN, attempt=claim.attempt, worker=worker,
                        reason=reason,
                    ),
                )  # fmt: skip

    @property
    def is_behind(self) -> bool:
        """Whether the journal holds what was not folded yet."""
        return self._cursor < len(self.journal)

    def fold(self) -> list[Out]:
        """Decide everything that the journal holds by now; what leaves, in order."""
        while self.is_behind:
            entry = self.journal[self._cursor]
            self._cursor += 1
            self._fold(entry)
        out, self._out = self._out, []
        return out

    # one record

    def _fold(self, entry: Entry) -> None:
        record, source = entry.record, entry.source
        error = check_envelope(record, source, PARTITION, PARTITIONS)
        if error is not None:
            self._refuse_envelope(entry, error)
            return
        match record:
            case Owner():
                self._owner = record.token
            case WorkflowRegistered():
                self.workflows[record.tenant, record.workflow] = record
            case WorkflowForgotten():
                self.workflows.pop((record.tenant, record.workflow), None)
            case TimerDue() | WorkerLost() | Absent() if record.owner != self._owner:
                pass
            case Command():
                self._command(entry, record)
            case Started() | Registered():
                self._claim(entry, record)
            case _:
                self._report(entry)

    def _refuse_envelope(self, entry: Entry, error: RuntaraError) -> None:
        """What its subject does not allow; whoever waits for an answer gets one."""
        record = entry.record
        self.rejected.append((record, error))
        if record.reply is None:
            return
        if isinstance(record, Command):
            self._answer_command(record, entry.source.tenant, error)
        elif isinstance(record, Started | Registered):
            attempt = record.attempt if isinstance(record, Started) else 0
            self._superseded(record.reply, record.instance, attempt, record.nonce, str(error))
        elif isinstance(record, Report):
            self._answer_report(entry, record, error)

    def _command(self, entry: Entry, record: Command) -> None:
        tenant = self._tenant(entry)
        error: RuntaraError | None = None
        if (tenant, record.instance, record.id) not in self._obeyed:
            unknown: RuntaraError | None = None
            if isinstance(record, Start | Fork):
                record, unknown = self._with_options(tenant, record)
            decision = self._decide(entry, tenant, record, unknown)  # type: ignore[arg-type]  # every command is one
            error = decision.error
            if decision.events:
                self._obeyed.add((tenant, record.instance, record.id))
            if error is not None and isinstance(record, Start) and record.parent is not None:
                self._refuse_child(tenant, record, error)
        if record.reply is not None:
            self._answer_command(record, tenant, error)
        elif error is not None:
            self.rejected.append((entry.record, error))

    def _answer_command(self, record: Command, tenant: str, error: RuntaraError | None) -> None:
        row = self.rows.get((tenant, record.instance))
        answer = CommandAnswer(
            id=record.id,
            instance=record.instance,
            status=row.state.status.value if row is not None else "",
            error=error.to_wire() if error is not None else None,
        )
        self._out.append(Answer(record.reply or "", answer))

    def _with_options(self, tenant: str, record: Start | Fork) -> tuple[Start | Fork, RuntaraError | None]:
        """The record with its workflow's options in it, as the log keeps them."""
        known = self.workflows.get((tenant, record.workflow))
        if known is None:
            names = sorted(name for owner, name in self.workflows if owner == tenant)
            close = get_close_matches(record.workflow, names, n=3)
            hint = f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
            return record, UnknownWorkflow(workflow=record.workflow, hint=hint)
        return with_registration(record, known.kind, known.options), version_fault(record, known.options)

    def _refuse_child(self, tenant: str, start: Start, error: RuntaraError) -> None:
        assert start.parent is not None
        told = ChildDone(
            id=start.id, instance=start.parent.instance, tenant=tenant, key=start.parent.key, child=start.instance,
            status="refused", error=error.to_wire(),
        )  # fmt: skip
        self.append(ENGINE, told)

    def _claim(self, entry: Entry, record: Started | Registered) -> None:
        tenant = self._tenant(entry)
        decision = self._decide(entry, tenant, record)
        row = self.rows.get((tenant, record.instance))
        claim = row.state.claim if row is not None else None
        if record.reply is None:
            return
        won = claim is not None and claim.nonce == record.nonce and decision.note in ("applied", "duplicate")
        if won and row is not None and claim is not None:
            self._out.append(Answer(record.reply, claimed(row, claim, entry.time_us)))
        else:
            attempt = record.attempt if isinstance(record, Started) else 0
            reason = str(decision.error) if decision.error is not None else ""
            self._superseded(record.reply, record.instance, attempt, record.nonce, reason)

    def _superseded(self, reply: str, instance: str, attempt: int, nonce: str, reason: str) -> None:
        self._out.append(Answer(reply, Superseded(instance=instance, attempt=attempt, nonce=nonce, reason=reason)))

    def _report(self, entry: Entry) -> None:
        record = entry.record
        tenant = self._tenant(entry)
        decision = self._decide(entry, tenant, record)
        refused = decision.error if decision.note in ("stale", "refused") else None
        if decision.note == "refused" and decision.error is not None:
            self.rejected.append((record, decision.error))
        if not isinstance(record, Report):
            return
        if record.reply is not None:
            self._answer_report(entry, record, refused)
        elif decision.note == "stale" and entry.source.worker is not None:
            reason = str(decision.error) if decision.error is not None else ""
            told = Superseded(instance=record.instance, attempt=record.attempt, nonce=record.nonce, reason=reason)
            self._out.append(ToWorker(tenant, entry.source.worker, told))

    def _answer_report(self, entry: Entry, record: Report, refused: RuntaraError | None) -> None:
        rejected = [(record.instance, record.attempt, record.seq, str(refused))] if refused is not None else []
        answer = CommitAnswer(partition=PARTITION, sequence=entry.sequence, rejected=rejected)
        self._out.append(Answer(record.reply or "", answer))

    # events, and what they let out

    def _decide(self, entry: Entry, tenant: str, record: AnyRecord, unknown: RuntaraError | None = None) -> Decision:
        """`unknown`: why nobody can run what is to be started."""
        row = self.rows.get((tenant, record.instance))
        before = row.state if row is not None else None
        if isinstance(record, Start | Fork) and unknown is not None:
            decision = start_unknown(before, record, unknown)
        else:
            decision = decide(before, record, entry.time_us, source=entry.source)
        for event in decision.events:
            row = self._append(tenant, record, event, row, entry.time_us)
        if row is not None and decision.events:
            self._let_out(row, before)
        return decision

    def _append(self, tenant: str, record: Record, event: AnyEvent, row: Row | None, now: int) -> Row:
        before = row.state if row is not None else None
        if row is None:
            if not isinstance(event, InstanceCreated):
                raise RuntimeError(f"the first event of {tenant}/{record.instance} is {type(event).__name__}")
            row = self.rows[tenant, record.instance] = Row(tenant, record.instance, event, now)
        actor = record.actor if isinstance(record, Command) else None
        row.append(event, at_us=now, offset=self._offset, actor=actor)
        self._offset += 1
        blob = blob_named(event)
        if blob is not None:
            self.blobs.uses.add((tenant, row.instance, blob.hash))
        for command in outbox_commands(before, event, row.state, tenant, row.instance):
            self.append(ENGINE, command)  # type: ignore[arg-type]  # commands and child_done are among the records
        self._tell_loss(row, before, event, record)
        return row

    def _tell_loss(self, row: Row, before: State | None, event: AnyEvent, record: Record) -> None:
        """A claim that was taken from its worker, which therefore has to be told."""
        lost: Claim | None = before.claim if before is not None else None
        if lost is None or row.state.claim is not None:
            return
        if isinstance(event, AttemptLost) or not isinstance(record, Report):
            told = Superseded(
                instance=row.instance, attempt=lost.attempt, nonce=lost.nonce, reason="the attempt was ended"
            )
            self._out.append(ToWorker(row.tenant, lost.worker, told))

    def _let_out(self, row: Row, before: State | None) -> None:
        state = row.state
        was, now = effects(before) if before is not None else None, effects(state)
        self._keep_timers(row, was.timers if was is not None else {}, now.timers)
        if now.run_request is not None and (was is None or now.run_request != was.run_request):
            self._out.append(RunDue(run_request(row)))
        if now.purge is not None and (was is None or now.purge != was.purge):
            self._out.append(Withdrawn(row.tenant, row.instance, now.purge))
        if state.status.is_terminal and (before is None or not before.status.is_terminal):
            self._out.append(Ended(row.tenant, row.instance, done_of(row)))
        if now.control is not None:
            self._out.extend(
                ToWorker(row.tenant, now.control.worker, message) for message in control_messages(row, now.control)
            )

    def _keep_timers(self, row: Row, was: dict[int, int], now: dict[int, int]) -> None:
        for version in was.keys() - now.keys():
            self._timers.pop((row.tenant, row.instance, version), None)
        for version in now.keys() - was.keys():
            self._timers[row.tenant, row.instance, version] = now[version]

    def _tenant(self, entry: Entry) -> str:
        if isinstance(entry.record, OF_NO_INSTANCE):
            return ""
        return entry.source.tenant or getattr(entry.record, "tenant", None) or ""
