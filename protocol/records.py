"""Records: what travels in the journal. Commands ask, reports tell, engine records are the engine's own.

Invariants: every record is a strict struct (an unknown field is a malformed record); durations travel, deadlines
do not (decide makes them from the journal's clock); `data`, `input`, `result` are raw JSON that the hot path
never parses, or null where a `blob` beside them says where the value is. Times and durations are integer microseconds.
"""

from typing import Final, Literal

import msgspec
from msgspec import Raw

from .blobs import Blob
from .errors import WireError
from .limits import DEFAULT_RESTARTS
from .subjects import Channel

NO_DATA: Final = Raw(b"null")


class Image(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The container image that a workflow was registered with, and its limits, as each of its instances keeps them.

    `reference` is what the container engine is asked for, by digest wherever that is known. `memory_bytes`, `cpus` (of
    one core), `pids` and `timeout_us` (wall-clock) are limits, None where there is none. `network`: `bus` reaches NATS
    and nothing else. `secrets` are names, whose values the runner hands over as files. `isolation`: a container for
    each instance, or one that hosts many of the same tenant and workflow, those of older versions included.
    """

    name: str
    version: int
    reference: str
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    timeout_us: int | None = None
    network: Literal["bus", "bridge", "host"] = "bus"
    env: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    isolation: Literal["instance", "pool"] = "instance"


class Options(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an instance was started with besides its input; kept in the log, so that a wake forgets nothing.

    `runner` is the kind that executes it, `restarts` the budget of attempts in a row that are lost without a new
    key, `timeout_us` and `linger_us` durations, `durability` the default of its operations, `image` what a container
    is made of, `connections` names of those that its code may open, `definition` the version of the registered JSON
    workflow that it is.
    """

    runner: str = "pool"
    restarts: int = DEFAULT_RESTARTS
    timeout_us: int | None = None
    linger_us: int | None = None
    durability: Literal["journal", "log"] | None = None
    image: Image | None = None
    connections: tuple[str, ...] = ()
    definition: int | None = None


class Parent(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who asked for a child: answers go to `instance` (same tenant), for the wait under `key`.

    `depth`: how many instances stand above the child.
    """

    instance: str
    key: str
    depth: int = 1


class Record(
    msgspec.Struct,
    gc=False,  # frozen trees without cycles, by the thousand: the collector need not look at them
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="type",
):
    """`at` is the sender's clock, for information only. `reply` asks for an answer after the commit."""

    instance: str
    at: int = 0
    reply: str | None = None


# commands: from clients, and from engines to instances of other partitions


class Command(Record, frozen=True, kw_only=True):
    """`id` is made by the sender; a repeated id gets the recorded outcome. `tenant` is set on engine subjects only."""

    id: str
    actor: str | None = None
    tenant: str | None = None


class Start(Command, frozen=True, kw_only=True, tag="start"):
    """`done`: an inbox of the sender's, to be told of the instance's end if that comes within a few seconds.

    `parent` and `schedule` (a schedule's name) say for whom the platform starts it, on engine subjects only. `version`:
    of the workflow's registered definition, the last unless given.
    """

    workflow: str
    input: Raw = Raw(b"{}")
    blob: Blob | None = None
    options: Options | None = None
    labels: dict[str, str] = {}
    parent: Parent | None = None
    schedule: str | None = None
    done: str | None = None
    version: int | None = None


class Signal(Command, frozen=True, kw_only=True, tag="signal"):
    name: str
    data: Raw = NO_DATA
    blob: Blob | None = None


class Pause(Command, frozen=True, kw_only=True, tag="pause"):
    reason: str | None = None


class Resume(Command, frozen=True, kw_only=True, tag="resume"):
    pass


class Cancel(Command, frozen=True, kw_only=True, tag="cancel"):
    reason: str | None = None


class Retry(Command, frozen=True, kw_only=True, tag="retry"):
    pass


# claims


class Registered(Record, frozen=True, kw_only=True, tag="registered"):
    """A script that started by itself: creates the instance, or takes its next attempt."""

    workflow: str
    worker: str
    nonce: str
    input: Raw = Raw(b"{}")
    blob: Blob | None = None
    options: Options | None = None
    labels: dict[str, str] = {}


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """A claim of `attempt` by `worker`; a runner only reserves it, and `token` lets its container take over."""

    attempt: int
    nonce: str
    worker: str
    by: Literal["worker", "runner"] = "worker"
    token: str | None = None
    tenant: str | None = None


# reports: accepted only under the current claim, numbered without gaps


class Report(Record, frozen=True, kw_only=True):
    attempt: int
    nonce: str
    seq: int


class Checkpointed(Report, frozen=True, kw_only=True, tag="checkpointed"):
    """`data` is `{"kind": "checkpoint" or "step", "value": …}` and goes into the log byte for byte.

    It has `blob` instead of `value` where that went aside.
    """

    key: str
    data: Raw
    digest: str | None = None  # of the arguments, where the key was made from them


class StepFailure(Report, frozen=True, kw_only=True, tag="step_failed"):
    """Try `n` of a step failed. `for_us`: the next try is due then; without it the failure is the key's memo."""

    key: str
    n: int
    error: WireError
    for_us: int | None = None


class ChildRequest(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`on_end`: what becomes of the child when its parent ends before it. `version`: as that of a start.
    `digest`: of an input that went aside."""

    workflow: str
    instance: str | None = None
    input: Raw = Raw(b"{}")
    blob: Blob | None = None
    digest: str = ""
    options: Options | None = None
    labels: dict[str, str] = {}
    on_end: Literal["cancel", "leave"] = "cancel"
    version: int | None = None


class Parked(Report, frozen=True, kw_only=True, tag="parked"):
    """An operation waits: `sleep` (for_us or until_us), `signal` (name, maybe with for_us) or `child` (start)."""

    key: str
    kind: Literal["sleep", "signal", "child"]
    for_us: int | None = None
    until_us: int | None = None
    name: str | None = None
    child: ChildRequest | None = None


class Unparked(Report, frozen=True, kw_only=True, tag="unparked"):
    """The code gave the wait up; a signal it had been given goes back to the front."""

    key: str


class Compensating(Report, frozen=True, kw_only=True, tag="compensating"):
    """Registers an undo: from now on a cancel or failure has something to undo under `~undo/<key>`."""

    key: str
    data: Raw


class Suspended(Report, frozen=True, kw_only=True, tag="suspended"):
    """The attempt leaves its process; its last record. `keys` are the operations it is blocked on."""

    reason: Literal["parked", "pause", "released", "self"]
    keys: tuple[str, ...] = ()


class Completed(Report, frozen=True, kw_only=True, tag="completed"):
    result: Raw = NO_DATA
    blob: Blob | None = None


class Failed(Report, frozen=True, kw_only=True, tag="failed"):
    error: WireError


class Cancelled(Report, frozen=True, kw_only=True, tag="cancelled"):
    reason: str | None = None


class Continued(Report, frozen=True, kw_only=True, tag="continued"):
    """Same id, new input, a fresh set of keys: endless loops."""

    input: Raw
    blob: Blob | None = None


class Custom(Report, frozen=True, kw_only=True, tag="custom"):
    key: str
    name: str
    data: Raw = NO_DATA
    blob: Blob | None = None


# best effort: no seq, never a reason to end an attempt


class Progress(Record, frozen=True, kw_only=True, tag="progress"):
    attempt: int
    nonce: str
    done: int
    total: int | None = None


class Log(Record, frozen=True, kw_only=True, tag="log"):
    attempt: int
    nonce: str
    level: Literal["debug", "info", "warning", "error"]
    message: str
    data: Raw = NO_DATA


# runners


class Exited(Record, frozen=True, kw_only=True, tag="exited"):
    """The process of an attempt ended; `stderr` are its last words.

    `memory_bytes` is the most memory that it held, `cpu_us` the processor time that it used, where the runner knows.
    """

    attempt: int
    worker: str
    reason: str
    stderr: str = ""
    memory_bytes: int | None = None
    cpu_us: int | None = None


# engines, under the owner's token


class Owner(Record, frozen=True, kw_only=True, tag="owner"):
    """From here on in the journal, only records naming this `token` count. `instance` is empty."""

    token: str


class TimerDue(Record, frozen=True, kw_only=True, tag="timer_fired"):
    """`timer` is the version of the event that created it; `tenant` and `owner` as on every engine record."""

    tenant: str
    owner: str
    timer: int


class WorkerLost(Record, frozen=True, kw_only=True, tag="worker_lost"):
    tenant: str
    owner: str
    attempt: int
    worker: str
    reason: str = "lease expired"


class Absent(Record, frozen=True, kw_only=True, tag="absent"):
    """A live worker no longer lists the instance that it claimed."""

    tenant: str
    owner: str
    attempt: int
    worker: str


class ChildDone(Record, frozen=True, kw_only=True, tag="child_done"):
    """The outcome of a child, or of the request to start it; sent by the child's engine, once for each child."""

    id: str
    tenant: str
    key: str
    child: str
    status: Literal["completed", "failed", "cancelled", "refused"]
    result: Raw = NO_DATA
    blob: Blob | None = None
    error: WireError | None = None


class Copied(msgspec.Struct, gc=False, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a fork takes over: key, type and data of an event of its source's, or of one whose answer is given by hand.

    Of a compensation (`CompensationInherited`) `data` is what it was registered with.
    """

    key: str
    type: str
    data: Raw


class Fork(Command, frozen=True, kw_only=True, tag="fork"):
    """Create `instance` with what `source` had recorded; the fields are those of `InstanceForked`, and its `memos`.

    A client asks for it over the API; the engine that is asked reads the source and makes this, so that whoever folds
    it needs nothing else.
    """

    workflow: str
    input: Raw
    blob: Blob | None = None
    options: Options
    labels: dict[str, str]
    source: str
    version: int
    source_hash: str = ""
    at_key: str | None = None
    edits: tuple[str, ...] = ()
    input_replaced: bool = False
    memos: tuple[Copied, ...] = ()


class WorkflowRegistered(Record, frozen=True, kw_only=True, tag="workflow_registered"):
    """From here on in the journal its partition knows the workflow like this; any engine says so in every partition.

    `instance` is empty, `at` the time of the registration, `parameters` the JSON Schema of the input object.
    """

    tenant: str
    workflow: str
    kind: str = "pool"
    code_version: str = ""
    parameters: Raw = Raw(b"{}")
    options: Options = Options()
    description: str = ""


class WorkflowForgotten(Record, frozen=True, kw_only=True, tag="workflow_forgotten"):
    """From here on in the journal its partition starts no more of it. `instance` is empty."""

    tenant: str
    workflow: str


class Unreadable(Record, frozen=True, kw_only=True, tag="unreadable"):
    """Made by the engine from a record it could not decode but whose claim it could: that attempt must end."""

    attempt: int
    nonce: str
    seq: int
    reason: str


OF_NO_INSTANCE: Final = (Owner, WorkflowRegistered, WorkflowForgotten)  # they speak to the partition itself
COMMANDS: Final = (Start, Signal, Pause, Resume, Cancel, Retry)
REPORTS: Final = (
    Registered, Started, Checkpointed, StepFailure, Parked, Unparked, Compensating, Suspended, Completed, Failed,
    Cancelled, Continued, Custom, Progress, Log,
)  # fmt: skip
AnyCommand = Start | Signal | Pause | Resume | Cancel | Retry
AnyReport = (
    Checkpointed | StepFailure | Parked | Unparked | Compensating | Suspended | Completed | Failed | Cancelled
    | Continued | Custom
)  # fmt: skip
AnyEngineRecord = Owner | TimerDue | WorkerLost | Absent | ChildDone | Fork | WorkflowRegistered | WorkflowForgotten
WireRecord = AnyCommand | Registered | Started | AnyReport | Progress | Log | Exited | AnyEngineRecord
AnyRecord = WireRecord | Unreadable

ALLOWED: Final[dict[Channel, tuple[type[Record], ...]]] = {
    Channel.COMMANDS: COMMANDS,
    Channel.REPORTS: REPORTS,
    Channel.RUNNER: (Started, Exited),
    Channel.ENGINE: (*OF_NO_INSTANCE, TimerDue, WorkerLost, Absent, ChildDone, Fork, Start, Cancel, Signal),
}
