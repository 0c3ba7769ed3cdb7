"""Folding a batch of the journal: records → decisions → events, rows, and what is owed to whom after the commit.

No I/O. A `Fold` starts from a partition's position and the rows that its records speak of, and ends with everything
that one transaction has to write. Nothing is let out before that transaction is committed; a fold that could not be
committed is thrown away whole.

Invariants: offsets have no gaps; the clock is the journal's and never runs back; engine records count only under the
last `owner` record before them in the journal; a start knows the workflows that were registered before it in the
journal; no input makes it raise.
"""

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Final

from msgspec import Raw

from runtara.projections.instances import InstanceRow, only_grew, project
from runtara.protocol.chain import canonical, event_hash, next_head
from runtara.protocol.errors import InstanceArchived, RuntaraError, UnknownWorkflow, WireError
from runtara.protocol.events import AnyEvent, AttemptLost, CheckpointSaved, WaitResolved, blob_named, encode_data
from runtara.protocol.frames import Rejection, encode_record
from runtara.protocol.ids import partition_of
from runtara.protocol.limits import MAX_REJECTED_BYTES
from runtara.protocol.messages import CommandAnswer, CommitAnswer, Memo, Superseded
from runtara.protocol.records import (
    COMMANDS,
    OF_NO_INSTANCE,
    Absent,
    AnyRecord,
    Checkpointed,
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
from runtara.protocol.subjects import Source, may_answer

from .cache import Id
from .fold_values import (
    Answer,
    ClaimDue,
    CommandId,
    Context,
    OutboxRow,
    Position,
    RejectedRow,
    ResolvedDue,
    TimerChanges,
)
from .lifecycle import (
    Claim,
    State,
    check_envelope,
    decide,
    outbox_commands,
    start_unknown,
    version_fault,
    with_registration,
)
from .reader import Frame
from .workflows import Registrations

_TOKENED: Final = (TimerDue, WorkerLost, Absent)
_SPECIAL: Final = {*OF_NO_INSTANCE, *_TOKENED, *COMMANDS, Fork, Started, Registered}


class Fold:
    """`rows` holds every existing instance that the frames name; it is changed in place as the fold goes on.

    `retired`: those they name that are in an archive (its name), whose ids are never used again.
    """

    def __init__(self, position: Position, rows: dict[Id, InstanceRow], context: Context) -> None:
        self.context = context
        self.rows = rows
        self.retired: dict[Id, str] = {}
        self.before: dict[Id, InstanceRow | None] = {}
        self.events: list[tuple[object, ...]] = []
        self.outbox: list[OutboxRow] = []
        self.rejected: list[RejectedRow] = []
        self.blob_uses: set[tuple[str, str, str]] = set()  # tenant, instance, hash
        self.answers: list[Answer] = []
        self.claims: list[ClaimDue] = []
        self.resolved: list[ResolvedDue] = []
        self.superseded: dict[tuple[str, str, str], Superseded] = {}
        self.lost: list[tuple[str, str, Claim]] = []
        self.heard: set[Id] = set()
        self.starters: dict[Id, str] = {}
        self.counts: Counter[str] = Counter()
        self.workflows = Registrations(context.workflows, context.registered)
        self._head = position.head
        self._head_hash = position.head_hash
        self._clock = position.clock
        self._sequence = 0
        self._journal_owner = position.journal_owner
        self._repeated = set(context.repeated)
        self.commands: set[CommandId] = set()  # that the log has only once this is committed
        self._sources: dict[str, Source] = {}
        self._reporters: set[tuple[str, str]] = set()

    def learn_repeated(self, commands: Iterable[CommandId]) -> None:
        """The log has these already."""
        self._repeated.update(commands)

    @property
    def position(self) -> Position:
        return Position(
            head=self._head, head_hash=self._head_hash, clock=self._clock, journal_owner=self._journal_owner
        )

    @property
    def changed(self) -> dict[Id, InstanceRow]:
        return {id: self.rows[id] for id in self.before}

    @property
    def revived(self) -> list[Id]:
        """Those that had ended and go on: the only rows that somebody else may take away meanwhile."""
        return [id for id, row in self.before.items() if row is not None and row.state.status.is_terminal]

    @property
    def reshaped(self) -> list[InstanceRow]:
        """Rows to be written whole."""
        return [self.rows[id] for id, before in self.before.items() if not only_grew(before, self.rows[id])]

    @property
    def grown(self) -> list[InstanceRow]:
        """Rows of which only the fold moved on."""
        return [self.rows[id] for id, before in self.before.items() if only_grew(before, self.rows[id])]

    @functools.cached_property
    def timers(self) -> TimerChanges:
        """Asked for when the fold is finished."""
        changes = TimerChanges([], [])
        for id, row in self.before.items():
            old = row.state.timers if row is not None else {}
            new = self.rows[id].state.timers
            if old is not new:
                changes.added.extend((*id, version, new[version].due_us) for version in new if version not in old)
                changes.dropped.extend((*id, version) for version in old if version not in new)
        return changes

    def frame(self, frame: Frame) -> None:
        self._clock = max(self._clock, frame.time_us)
        self._sequence = frame.sequence
        try:
            source = self._source(frame.subject)
        except RuntaraError as exc:
            self._reject(frame, None, None, exc, frame.data)
            return
        if source.worker is not None:
            self.heard.add((source.tenant, source.worker))
        for rejection in frame.rejections:
            self._reject_bytes(frame, source, rejection)
        waiting: dict[str, list[tuple[str, int, int, str]]] = {}
        for record in frame.records:
            self._record(frame, source, record, waiting)
        for reply, refused in waiting.items():
            self._answer(
                source.tenant,
                reply,
                CommitAnswer(partition=self.context.partition, sequence=frame.sequence, rejected=refused),
            )

    def _source(self, subject: str) -> Source:
        source = self._sources.get(subject)
        if source is None:
            source = self._sources[subject] = self.context.subjects.parse_journal(subject)
        return source

    def _record(
        self, frame: Frame, source: Source, record: AnyRecord, waiting: dict[str, list[tuple[str, int, int, str]]]
    ) -> None:
        error = self._envelope_fault(frame, source, record)
        tenant = source.tenant or getattr(record, "tenant", None) or ""
        if error is not None:
            self._refuse(frame, tenant, record, error)
            self._answer_refusal(tenant, record, error, waiting)
            return
        if type(record) in _SPECIAL:
            self._special(frame, source, tenant, record)
            return
        note, reason = self._decide(frame, source, tenant, record)
        if record.reply is not None:
            refused = waiting.setdefault(record.reply, [])
            if note in ("stale", "refused") and isinstance(record, Report):
                refused.append((record.instance, record.attempt, record.seq, reason))

    def _envelope_fault(self, frame: Frame, source: Source, record: AnyRecord) -> RuntaraError | None:
        """What its subject does not allow. Whoever may report one step of an instance may report the next."""
        sender = (frame.subject, record.instance)
        if type(record) is Checkpointed and sender in self._reporters:
            return None
        fault = check_envelope(record, source, self.context.partition, self.context.partitions)
        if fault is None and type(record) is Checkpointed:
            self._reporters.add(sender)
        return fault

    def _answer_refusal(
        self, tenant: str, record: AnyRecord, error: RuntaraError, waiting: dict[str, list[tuple[str, int, int, str]]]
    ) -> None:
        """A claim or report that its subject does not allow: whoever waits for its answer would ask for ever."""
        if record.reply is None:
            return
        if isinstance(record, Report):
            waiting.setdefault(record.reply, []).append((record.instance, record.attempt, record.seq, str(error)))
        elif isinstance(record, Started | Registered):
            attempt = record.attempt if isinstance(record, Started) else 0
            told = Superseded(instance=record.instance, attempt=attempt, nonce=record.nonce, reason=str(error))
            self._answer(tenant, record.reply, told)

    def _special(self, frame: Frame, source: Source, tenant: str, record: AnyRecord) -> None:
        match record:
            case Owner():
                self._journal_owner = record.token
            case WorkflowRegistered() | WorkflowForgotten():
                self.workflows.apply(record)
            case TimerDue() | WorkerLost() | Absent() if record.owner != self._journal_owner:
                self.counts["stale_owner"] += 1
            case Command():
                self._command(frame, source, tenant, record)
            case Started() | Registered():
                self._claim(frame, source, tenant, record)
            case _:
                self._decide(frame, source, tenant, record)

    def _command(self, frame: Frame, source: Source, tenant: str, record: AnyRecord) -> None:
        assert isinstance(record, Command)
        error: RuntaraError | None = None
        if (tenant, record.instance, record.id) not in self._repeated:
            error = self._decide_command(frame, source, tenant, record)
            if error is not None and isinstance(record, Start) and record.parent is not None:
                self._refuse_child(tenant, record, error)
        row = self.rows.get((tenant, record.instance))
        status = row.state.status.value if row is not None else ""
        wire = error.to_wire() if error is not None else None
        if record.reply is not None:
            self._answer(
                tenant, record.reply, CommandAnswer(id=record.id, instance=record.instance, status=status, error=wire)
            )
        elif error is not None:
            self._refuse(frame, tenant, record, error)

    def _decide_command(self, frame: Frame, source: Source, tenant: str, record: Command) -> RuntaraError | None:
        id = (tenant, record.instance)
        if id in self.retired and isinstance(record, Start | Fork):
            return InstanceArchived(instance=record.instance, archive=self.retired[id])
        row = self.rows.get(id)
        state, unknown = row.state if row is not None else None, None
        if isinstance(record, Start | Fork):
            record, unknown = self._with_registration(tenant, record)
        if isinstance(record, Start | Fork) and unknown is not None:
            decision = start_unknown(state, record, unknown)
        else:
            decision = decide(state, record, self._clock, source=source)  # type: ignore[arg-type]
        if isinstance(record, Start) and record.done is not None and may_answer(tenant, record.done):
            self.starters[id] = record.done
        if decision.events:
            self._repeated.add((*id, record.id))
            self.commands.add((*id, record.id))
            self._append(id, record, decision.events)
        self.counts[decision.note] += 1
        return decision.error

    def _with_registration(self, tenant: str, record: Start | Fork) -> tuple[Start | Fork, RuntaraError | None]:
        """The record with its workflow's options in it: the log must hold them, whatever is registered later."""
        known = self.workflows.find(tenant, record.workflow)
        if known is None:
            hint = self.workflows.nearest(tenant, record.workflow)
            return record, UnknownWorkflow(workflow=record.workflow, hint=hint)
        return with_registration(record, known.kind, known.options), version_fault(record, known.options)

    def _refuse_child(self, tenant: str, start: Start, error: RuntaraError) -> None:
        assert start.parent is not None
        answer = ChildDone(
            id=start.id,
            instance=start.parent.instance,
            tenant=tenant,
            key=start.parent.key,
            child=start.instance,
            status="refused",
            error=error.to_wire(),
        )
        self._post([answer], tenant)

    def _claim(self, frame: Frame, source: Source, tenant: str, record: AnyRecord) -> None:
        assert isinstance(record, Started | Registered)
        note, reason = self._decide(frame, source, tenant, record)
        if record.reply is None:
            return
        row = self.rows.get((tenant, record.instance))
        claim = row.state.claim if row is not None else None
        if row is not None and claim is not None and claim.nonce == record.nonce and note in ("applied", "duplicate"):
            self.claims.append(
                ClaimDue(
                    tenant=tenant,
                    instance=record.instance,
                    attempt=row.state.attempt,
                    nonce=record.nonce,
                    version=claim.version,
                    now_us=self._clock,
                    reply=record.reply,
                )
            )
            return
        attempt = record.attempt if isinstance(record, Started) else 0
        self._answer(
            tenant,
            record.reply,
            Superseded(instance=record.instance, attempt=attempt, nonce=record.nonce, reason=reason),
        )

    def _decide(self, frame: Frame, source: Source, tenant: str, record: AnyRecord) -> tuple[str, str]:
        """Decide one record and append its events; what became of it, and why."""
        id = (tenant, record.instance)
        if id in self.retired and isinstance(record, Registered):
            return "stale", str(InstanceArchived(instance=record.instance, archive=self.retired[id]))
        row = self.rows.get(id)
        decision = decide(row.state if row is not None else None, record, self._clock, source=source)
        if decision.events:
            self._append(id, record, decision.events)
        self.counts[decision.note] += 1
        reason = str(decision.error) if decision.error is not None else ""
        if decision.note == "refused" and decision.error is not None:
            self._refuse(frame, tenant, record, decision.error)
        elif decision.note == "stale" and source.worker is not None and isinstance(record, Report):
            self.superseded[tenant, source.worker, record.instance] = Superseded(
                instance=record.instance, attempt=record.attempt, nonce=record.nonce, reason=reason
            )
        return decision.note, reason

    def _append(self, id: Id, record: Record, events: tuple[AnyEvent, ...]) -> None:
        row = self.rows.get(id)
        if id not in self.before:
            self.before[id] = row
        command = record.id if isinstance(record, Command) else None
        actor = record.actor if isinstance(record, Command) else None
        for event in events:
            before = row.state if row is not None else None
            row = self._append_one(id, row, event, record.at, command, actor)
            if type(event) is not CheckpointSaved:  # the hot path: it neither ends a claim nor commands anybody
                self._note_loss(id, before, row.state, event, record)
                self._post(outbox_commands(before, event, row.state, *id), id[0])
            command = None
        assert row is not None
        self.rows[id] = row

    def _note_loss(self, id: Id, before: State | None, after: State, event: AnyEvent, record: Record) -> None:
        """A claim that was taken from its worker, which therefore has to be told."""
        if before is None or before.claim is None:
            return
        if after.claim is None and (isinstance(event, AttemptLost) or not isinstance(record, Report)):
            self.lost.append((*id, before.claim))

    def _append_one(
        self, id: Id, row: InstanceRow | None, event: AnyEvent, at: int, command: str | None, actor: str | None
    ) -> InstanceRow:
        tenant, instance = id
        partition, offset, now = self.context.partition, self._head, self._clock
        version = row.state.version + 1 if row is not None else 1
        attempt = getattr(event, "attempt", None) or (row.state.attempt if row is not None else 0)
        kind, key, data = type(event).__name__, event.key, encode_data(event)
        text = canonical(partition, offset, tenant, instance, version, kind, attempt, key, actor, at, now, data)
        hash = event_hash(row.hash if row is not None else None, text)
        self.events.append(
            (partition, offset, tenant, instance, version, kind, attempt, key, actor, command, at, now, data, hash)
        )
        blob = blob_named(event)
        if blob is not None:
            self.blob_uses.add((tenant, instance, blob.hash))
        self._head = offset + 1
        self._head_hash = next_head(self._head_hash, hash)
        if type(event) is WaitResolved and row is not None and row.state.claim is not None:
            memo = Memo(key=key or "", version=version, type=kind, data=Raw(data), at=now)
            self.resolved.append(ResolvedDue(tenant=tenant, instance=instance, memo=memo))
        return project(row, event, tenant=tenant, instance=instance, partition=partition, recorded_at=now, hash=hash)

    def _post(self, records: list[Record], tenant: str) -> None:
        """Commands to other instances leave through the outbox, in order, in this transaction."""
        for record in records:
            target = partition_of(tenant, record.instance, self.context.partitions)
            self.outbox.append(
                OutboxRow(sequence=self._sequence, n=len(self.outbox), target=target, record=encode_record(record))
            )

    def _answer(self, tenant: str, reply: str, message: CommandAnswer | CommitAnswer | Superseded) -> None:
        if may_answer(tenant, reply):
            self.answers.append(Answer(reply, message))
        else:
            self.counts["answer_forbidden"] += 1

    def _refuse(self, frame: Frame, tenant: str, record: Record, error: RuntaraError) -> None:
        """Nobody waits for this answer, or not only its sender should know: keep it with its reason."""
        self.counts["refused"] += 1
        reply = record.reply
        if reply is not None and isinstance(record, Command):
            wire = WireError(code=type(error).__name__, message=str(error), attributes=dict(error.attributes))
            self._answer(tenant, reply, CommandAnswer(id=record.id, instance=record.instance, error=wire))
        self._reject(frame, tenant, record.instance, error, encode_record(record))

    def _reject_bytes(self, frame: Frame, source: Source, rejection: Rejection) -> None:
        self._reject_row(frame, source.tenant or None, None, "Malformed", rejection.reason, rejection.payload)

    def _reject(
        self, frame: Frame, tenant: str | None, instance: str | None, error: RuntaraError, payload: bytes
    ) -> None:
        self._reject_row(frame, tenant, instance, type(error).__name__, str(error), payload)

    def _reject_row(
        self, frame: Frame, tenant: str | None, instance: str | None, code: str, reason: str, payload: bytes
    ) -> None:
        self.rejected.append(
            RejectedRow(
                sequence=frame.sequence,
                subject=frame.subject,
                tenant=tenant,
                instance=instance,
                code=code,
                reason=reason.replace("\x00", ""),
                payload=payload[:MAX_REJECTED_BYTES],
                at=self._clock,
            )
        )
