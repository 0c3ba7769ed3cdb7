"""Events: facts in the event log, in the past tense.

Names are stable strings. `key` is a column of the log, everything else of an event is its `data` column;
`CheckpointSaved` stores the sender's bytes as they came. An event carries deadlines, never durations, and
no wall time of its own: when it was recorded is a column. Where an event has a `blob`, that is where the value is
which the field before it would hold.
"""

from typing import Final, Literal

import msgspec
from msgspec import Raw

from .blobs import Blob, blob_in
from .errors import WireError
from .records import NO_DATA, ChildRequest, Options, Parent


class Event(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """`key` names the durable operation the event belongs to, where there is one."""

    key: str | None = None


class InstanceCreated(Event, frozen=True, kw_only=True):
    """`origin` is what made it: a start (a client's, a parent's, a schedule's), a script's own registration, a fork."""

    workflow: str
    input: Raw
    blob: Blob | None = None
    options: Options
    labels: dict[str, str] = {}
    parent: Parent | None = None
    origin: Literal["start", "registered", "schedule", "fork"] = "start"


class InstanceForked(Event, frozen=True, kw_only=True):
    """What follows was recorded by `source` up to its event `version`, which has the hash `source_hash` (hex).

    `at_key`: the operation just before which the fork begins; `edits`: keys whose answers were given by hand.
    """

    source: str
    version: int
    source_hash: str = ""
    at_key: str | None = None
    edits: tuple[str, ...] = ()
    input_replaced: bool = False


class MemoCopied(Event, frozen=True, kw_only=True):
    """Answers the key as an event of this `type` and `data` does, and has no other effect: nothing is begun by it."""

    type: str
    data: Raw


class CompensationInherited(Event, frozen=True, kw_only=True):
    """The source has registered it, and it is the source's to undo: this instance neither registers nor runs it."""

    data: Raw


class InstanceQueued(Event, frozen=True, kw_only=True):
    """`attempt` may be claimed from `not_before_us` on; a timer of its own then dispatches it."""

    attempt: int
    not_before_us: int | None = None
    mode: Literal["normal", "cancelling"] = "normal"
    cause: str = ""


class AttemptStarted(Event, frozen=True, kw_only=True):
    """The claim. `reserved`: by a runner, for the container that shows `token`."""

    attempt: int
    nonce: str
    worker: str
    source: str = ""  # who may report under it: "w.<worker>" or "i.<instance>"
    reserved: bool = False
    token: str | None = None
    external: bool = False


class CheckpointSaved(Event, frozen=True, kw_only=True):
    data: Raw


class StepFailed(Event, frozen=True, kw_only=True):
    """`due_us`: when the next try is due; without it the failure is the key's memo."""

    n: int
    error: WireError
    due_us: int | None = None


class SleepStarted(Event, frozen=True, kw_only=True):
    due_us: int


class WaitStarted(Event, frozen=True, kw_only=True):
    name: str
    due_us: int | None = None


class ChildRequested(Event, frozen=True, kw_only=True):
    child: str
    request: ChildRequest


class WaitResolved(Event, frozen=True, kw_only=True):
    """The one outcome of a park. `signal`: version of the SignalReceived it consumed; `error`: why a child failed."""

    outcome: Literal["slept", "signal", "timeout", "child"]
    signal: int | None = None
    data: Raw = NO_DATA
    blob: Blob | None = None
    error: WireError | None = None


class WaitAbandoned(Event, frozen=True, kw_only=True):
    pass


class CompensationAdded(Event, frozen=True, kw_only=True):
    data: Raw


class CustomEvent(Event, frozen=True, kw_only=True):
    name: str
    data: Raw = NO_DATA
    blob: Blob | None = None


class ProgressReported(Event, frozen=True, kw_only=True):
    done: int
    total: int | None = None


class LogWritten(Event, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"]
    message: str
    data: Raw = NO_DATA


class TimerFired(Event, frozen=True, kw_only=True):
    """`key` is set where the next try of a step is due, so that its history says so."""

    timer: int


class SignalReceived(Event, frozen=True, kw_only=True):
    name: str
    data: Raw = NO_DATA
    blob: Blob | None = None


class ChildCompleted(Event, frozen=True, kw_only=True):
    child: str
    result: Raw = NO_DATA
    blob: Blob | None = None


class ChildFailed(Event, frozen=True, kw_only=True):
    child: str
    status: Literal["failed", "cancelled", "refused"]
    error: WireError | None = None


class InstanceSuspended(Event, frozen=True, kw_only=True):
    keys: tuple[str, ...]


class PauseRequested(Event, frozen=True, kw_only=True):
    reason: str | None = None


class InstancePaused(Event, frozen=True, kw_only=True):
    """`keys`: what it was blocked on, so that `resume` knows whether to queue it."""

    keys: tuple[str, ...] = ()


class InstanceResumed(Event, frozen=True, kw_only=True):
    pass


class CancelRequested(Event, frozen=True, kw_only=True):
    """`grace_due_us`: when a running claim is ended by force."""

    reason: str | None = None
    grace_due_us: int | None = None


class AttemptLost(Event, frozen=True, kw_only=True):
    """The claim ended without the attempt's consent. `counts`: against the restart budget."""

    reason: str
    detail: str = ""
    counts: bool = True


class ResourcesUsed(Event, frozen=True, kw_only=True):
    """What the process or container of an attempt had used when it ended; the attempt itself may have ended before."""

    attempt: int
    memory_bytes: int | None = None
    cpu_us: int | None = None


class InstanceRetried(Event, frozen=True, kw_only=True):
    pass


class InstanceContinued(Event, frozen=True, kw_only=True):
    input: Raw
    blob: Blob | None = None


class InstanceCompleted(Event, frozen=True, kw_only=True):
    result: Raw = NO_DATA
    blob: Blob | None = None


class InstanceFailed(Event, frozen=True, kw_only=True):
    error: WireError


class InstanceCancelled(Event, frozen=True, kw_only=True):
    reason: str | None = None


AnyEvent = (
    InstanceCreated | InstanceQueued | AttemptStarted | CheckpointSaved | StepFailed | SleepStarted | WaitStarted
    | ChildRequested | WaitResolved | WaitAbandoned | CompensationAdded | CustomEvent | ProgressReported | LogWritten
    | TimerFired | SignalReceived | ChildCompleted | ChildFailed | InstanceSuspended | PauseRequested | InstancePaused
    | InstanceResumed | CancelRequested | AttemptLost | ResourcesUsed | InstanceRetried | InstanceContinued
    | InstanceCompleted | InstanceFailed | InstanceCancelled | InstanceForked | MemoCopied | CompensationInherited
)  # fmt: skip

EVENT_TYPES: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in Event.__subclasses__()}
MEMO_TYPES: Final = (
    "CheckpointSaved", "StepFailed", "SleepStarted", "WaitStarted", "ChildRequested", "WaitResolved", "WaitAbandoned",
    "CompensationAdded", "CompensationInherited", "CustomEvent", "TimerFired", "MemoCopied",
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_payload_types: dict[str, msgspec.json.Decoder[Event]] = {
    name: msgspec.json.Decoder(cls) for name, cls in EVENT_TYPES.items()
}
_copies = msgspec.json.Decoder(MemoCopied)


def encode_data(event: AnyEvent) -> bytes:
    """The `data` column of an event."""
    if type(event) is CheckpointSaved:
        return bytes(event.data)
    bare = msgspec.structs.replace(event, key=None) if event.key is not None else event
    return _encoder.encode(bare)


def decode_event(type: str, key: str | None, data: bytes) -> AnyEvent:
    """An event from its columns. Raises `KeyError` for an unknown type, msgspec errors for bad data."""
    if type == "CheckpointSaved":
        return CheckpointSaved(key=key, data=Raw(data))
    event = _payload_types[type].decode(data)
    return msgspec.structs.replace(event, key=key) if key is not None else event  # type: ignore[return-value]


def memo_of(type: str, data: bytes) -> tuple[str, Raw]:
    """Type and data with which an event answers its key: a copy's are those of the event that was copied."""
    if type != MemoCopied.__name__:
        return type, Raw(data)
    copied = _copies.decode(data)
    return copied.type, copied.data.copy()


def blob_named(event: AnyEvent) -> Blob | None:
    """The blob that the event speaks of: it must be kept as long as the event is."""
    match event:
        case CheckpointSaved():
            return blob_in(event.data)
        case MemoCopied():
            return _blob_copied(event)
        case ChildRequested():
            return event.request.blob
        case (
            InstanceCreated() | WaitResolved() | CustomEvent() | SignalReceived() | ChildCompleted()
            | InstanceContinued() | InstanceCompleted()
        ):  # fmt: skip
            return event.blob
        case _:
            return None


def _blob_copied(event: MemoCopied) -> Blob | None:
    try:
        return blob_named(decode_event(event.type, event.key, bytes(event.data)))
    except (KeyError, msgspec.MsgspecError):  # the log takes what an engine has copied as it is
        return None
