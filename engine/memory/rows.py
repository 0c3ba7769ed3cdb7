"""What the engine in memory keeps of an instance: its events, the state they fold to, and what people ask for.

Invariant: a row is a function of its events, and is only ever appended to.
"""

from msgspec import Raw

from runtara.protocol.api import EventView, ForkedFrom, InstanceView
from runtara.protocol.blobs import Blob
from runtara.protocol.errors import WireError, WorkflowCancelled
from runtara.protocol.events import (
    MEMO_TYPES,
    AnyEvent,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceCreated,
    InstanceFailed,
    InstanceForked,
    InstanceRetried,
    ProgressReported,
    encode_data,
    memo_of,
)
from runtara.protocol.messages import Claimed, Done, Memo, RunRequest, Status
from runtara.protocol.records import NO_DATA, Parent

from ..lifecycle import Claim, State, evolve, needs_keys, recorded_keys, served, with_keys


class Row:
    """One instance. `log` are its events with their versions, `events` the same as users see them."""

    def __init__(self, tenant: str, instance: str, created: InstanceCreated, at_us: int) -> None:
        self.tenant = tenant
        self.instance = instance
        self.state = State(version=0)
        self.log: list[tuple[int, AnyEvent]] = []
        self.events: list[EventView] = []
        self.input = created.input
        self.input_blob = created.blob
        self.labels = created.labels
        self.parent: Parent | None = created.parent
        self.result: Raw | None = None
        self.result_blob: Blob | None = None
        self.error: WireError | None = None
        self.progress: tuple[int, int | None] | None = None
        self.created_at = self.updated_at = at_us

    def append(self, event: AnyEvent, *, at_us: int, offset: int, actor: str | None) -> None:
        self.state = evolve(self.state if self.log else None, event)
        version = self.state.version
        self.log.append((version, event))
        if needs_keys(self.state):
            self.state = with_keys(self.state, recorded_keys(self.state, self.log))
        self.updated_at = at_us
        seen = EventView(
            instance=self.instance,
            version=version,
            type=type(event).__name__,
            at=at_us,
            attempt=getattr(event, "attempt", None) or self.state.attempt,
            key=event.key,
            actor=actor,
            data=Raw(encode_data(event)),
            offset=offset,
        )
        self.events.append(seen)
        self._keep_outcome(event)

    def _keep_outcome(self, event: AnyEvent) -> None:
        match event:
            case InstanceCompleted():
                self.result, self.result_blob = event.result, event.blob
            case InstanceFailed():
                self.error = event.error
            case InstanceCancelled():
                reason = f": {event.reason}" if event.reason else ""
                self.error = WorkflowCancelled(instance=self.instance, reason=reason).to_wire()
            case InstanceContinued():
                self.input, self.input_blob = event.input, event.blob
            case InstanceRetried():
                self.error = None
            case ProgressReported():
                self.progress = (event.done, event.total)
            case _:
                pass


def memos(row: Row, *, after: int = 0, up_to: int | None = None) -> list[Memo]:
    """What a claim is answered with: the outcomes of keys with `after < version <= up_to`."""
    last = row.state.version if up_to is None else up_to
    return [
        memo_at(row, version)
        for version, event in served(row.state, row.log)
        if after < version <= last and type(event).__name__ in MEMO_TYPES
    ]


def memo_at(row: Row, version: int) -> Memo:
    """The event of this version, as a memo."""
    event = row.events[version - 1]
    type, data = memo_of(event.type, bytes(event.data))
    return Memo(key=event.key or "", version=version, type=type, data=data, at=event.at)


def view(row: Row, *, whole: bool = True) -> InstanceView:
    """What `get` shows; lists leave input and result out."""
    state = row.state
    return InstanceView(
        id=row.instance,
        tenant=row.tenant,
        workflow=state.workflow,
        status=state.status,
        attempt=state.attempt,
        restarts=state.restarts,
        version=state.version,
        labels=row.labels,
        created_at=row.created_at,
        updated_at=row.updated_at,
        wake_at=_wake_at(state),
        input=row.input if whole else NO_DATA,
        input_blob=row.input_blob if whole else None,
        result=row.result if whole and row.result is not None else NO_DATA,
        result_blob=row.result_blob if whole else None,
        error=row.error,
        parent=row.parent,
        worker=state.claim.worker if state.claim is not None else None,
        progress=row.progress,
        note=_note(state),
        forked_from=_forked_from(row) if whole else None,
    )


def _forked_from(row: Row) -> ForkedFrom | None:
    event = row.log[1][1] if len(row.log) > 1 else None
    return ForkedFrom(id=event.source, version=event.version) if isinstance(event, InstanceForked) else None


def _wake_at(state: State) -> int | None:
    if state.status not in (Status.SLEEPING, Status.WAITING, Status.QUEUED):
        return None
    return min((timer.due_us for timer in state.timers.values()), default=None)


def _note(state: State) -> str | None:
    if state.cancel is not None and not state.status.is_terminal:
        return "cancel requested"
    return "pause requested" if state.pause else None


def run_request(row: Row) -> RunRequest:
    state = row.state
    return RunRequest(
        tenant=row.tenant,
        instance=row.instance,
        workflow=state.workflow,
        attempt=state.attempt,
        first=state.is_fresh,
        input=row.input,
        blob=row.input_blob,
        options=state.options,
        labels=row.labels,
    )


def done_of(row: Row) -> Done:
    """How it ended."""
    result = row.result if row.result is not None else NO_DATA
    return Done(
        status=row.state.status, version=row.state.version, result=result, blob=row.result_blob, error=row.error
    )


def claimed(row: Row, claim: Claim, now_us: int) -> Claimed:
    """The answer to a claim: the history up to it."""
    state = row.state
    return Claimed(
        instance=row.instance,
        attempt=state.attempt,
        nonce=claim.nonce,
        version=claim.version,
        now_us=now_us,
        workflow=state.workflow,
        input=Raw(row.input),
        blob=row.input_blob,
        options=state.options,
        labels=row.labels,
        memos=memos(row, up_to=claim.version),
        pause=state.pause,
        cancel=state.cancel is not None,
        cancelling=state.mode == "cancelling",
        floor=state.floor,
        generation=state.generation,
    )
