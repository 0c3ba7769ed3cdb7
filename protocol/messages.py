"""Messages beside the journal: run requests, control, heartbeats, answers, hints and the API's requests and replies.

Invariants: all but API replies are strict structs, so what does not parse is ignored and counted by whoever
receives it; control and claim answers name instance, attempt and nonce; hints (`Committed`, `Done`) never
replace asking. Times are integer microseconds since 1970.
"""

from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import Raw

from .errors import WireError
from .records import NO_DATA, Options, Parent


class Status(StrEnum):
    """What users see of an instance. `sleeping` and `waiting` are suspended: on time alone, or on something else."""

    QUEUED = "queued"
    RUNNING = "running"
    SLEEPING = "sleeping"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class _Strict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class _Lenient(msgspec.Struct, frozen=True, kw_only=True):
    pass


# the run queue


class RunRequest(_Strict, frozen=True, kw_only=True):
    """`first`: the first publication of this request, so that attempt 1 may start before its claim is answered."""

    tenant: str
    instance: str
    workflow: str
    attempt: int
    first: bool = False
    input: Raw = Raw(b"{}")
    options: Options = Options()
    labels: dict[str, str] = {}


# answers to a claim


class Memo(_Strict, frozen=True, kw_only=True):
    """An event that answers a key. `type` is the event's, `data` its data column, `at` when it was recorded."""

    key: str
    version: int
    type: str
    data: Raw
    at: int = 0


class Claimed(_Strict, frozen=True, kw_only=True, tag_field="type", tag="claimed"):
    """The claim holds. `memos` up to `version`; if `more`, the rest comes from the API's `memos`.

    `now_us`: what the journal's clock showed when this was decided; deadlines in memos are to be read against it.
    `floor`: the version of the last InstanceContinued; what is derived from keys changes with it.
    `generation`: how often it was retried or continued; the ids of children are derived from it.
    """

    instance: str
    attempt: int
    nonce: str
    version: int
    now_us: int
    workflow: str
    input: Raw
    options: Options = Options()
    labels: dict[str, str] = {}
    memos: list[Memo] = []
    more: bool = False
    pause: bool = False
    cancel: bool = False
    cancelling: bool = False
    floor: int = 0
    generation: int = 0


class Superseded(_Strict, frozen=True, kw_only=True, tag_field="type", tag="superseded"):
    """The claim does not hold, or holds no longer. Also a control message."""

    instance: str
    attempt: int
    nonce: str
    reason: str = ""


ClaimAnswer = Claimed | Superseded


# control: hints to a worker


class PauseControl(_Strict, frozen=True, kw_only=True, tag_field="type", tag="pause"):
    instance: str
    attempt: int
    nonce: str


class CancelControl(_Strict, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    instance: str
    attempt: int
    nonce: str
    reason: str | None = None


class ResumeControl(_Strict, frozen=True, kw_only=True, tag_field="type", tag="resume"):
    """The pause was taken back before it was obeyed."""

    instance: str
    attempt: int
    nonce: str


class Resolved(_Strict, frozen=True, kw_only=True, tag_field="type", tag="resolved"):
    """A parked operation has its outcome; `memo` is its WaitResolved."""

    instance: str
    attempt: int
    nonce: str
    memo: Memo


Control = PauseControl | CancelControl | ResumeControl | Resolved | Superseded


# heartbeats and hints


class Hosted(_Strict, frozen=True, kw_only=True):
    """What a worker's main loop hosted `age_ms` ago, as (instance, attempt, nonce)."""

    instances: list[tuple[str, int, str]]
    age_ms: int = 0


class Heartbeat(_Strict, frozen=True, kw_only=True):
    worker: str
    kind: str = "pool"
    code_version: str = ""
    capacity: int = 0
    running: int = 0
    loop_lag_ms: int = 0
    hosted: Hosted | None = None


class Committed(_Strict, frozen=True, kw_only=True):
    stream: str
    partition: int
    owner: str
    cursor: int


class CommitAnswer(_Strict, frozen=True, kw_only=True):
    """To a frame that named a reply: committed at `sequence`; `rejected` are (instance, attempt, seq, reason)."""

    partition: int
    sequence: int
    rejected: list[tuple[str, int, int, str]] = []


class CommandAnswer(_Strict, frozen=True, kw_only=True):
    """To a command, after its commit. `status` is the instance's after it."""

    id: str
    instance: str
    status: str = ""
    error: WireError | None = None


class Done(_Strict, frozen=True, kw_only=True):
    status: Status
    version: int
    result: Raw = NO_DATA
    error: WireError | None = None


class Ended(_Strict, frozen=True, kw_only=True):
    """To whoever has just started `instance`."""

    instance: str
    done: Done


# the API


class Reply(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope of every API answer: `data`, or `error`."""

    data: Raw = NO_DATA
    error: WireError | None = None


class Info(_Lenient, frozen=True, kw_only=True):
    deployment: str
    partitions: int
    version: str
    now_us: int


class Registration(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow that a worker hosts. `parameters`: JSON Schema of its input object."""

    workflow: str
    kind: str = "pool"
    code_version: str = ""
    parameters: Raw = Raw(b"{}")
    options: Options = Options()
    description: str = ""


class RegisterRequest(_Lenient, frozen=True, kw_only=True):
    worker: str
    workflows: list[Registration]


class RegisterReply(_Lenient, frozen=True, kw_only=True):
    """`consumers`: for each workflow the run queue's consumer to pull from."""

    consumers: dict[str, str]
    stream: str


class ConsumersRequest(_Lenient, frozen=True, kw_only=True):
    """From a runner: where do run requests of its kind wait? It is shown as who hosts these workflows."""

    runner: str
    kind: str


class InstanceView(_Lenient, frozen=True, kw_only=True, omit_defaults=False):
    id: str
    tenant: str
    workflow: str
    status: Status
    attempt: int
    restarts: int
    version: int
    labels: dict[str, str]
    created_at: int
    updated_at: int
    wake_at: int | None = None
    input: Raw = NO_DATA
    result: Raw = NO_DATA
    error: WireError | None = None
    parent: Parent | None = None
    worker: str | None = None
    progress: tuple[int, int | None] | None = None
    note: str | None = None


class ListRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`cursor` is the last page's `next`. `limit` is at most 1,000."""

    status: Status | None = None
    workflow: str | None = None
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str | None = None


class ListReply(_Lenient, frozen=True, kw_only=True):
    instances: list[InstanceView]
    next: str | None = None


class EventView(_Lenient, frozen=True, kw_only=True):
    """An event as users see it."""

    instance: str
    version: int
    type: str
    at: int
    attempt: int
    key: str | None = None
    actor: str | None = None
    data: Raw = NO_DATA
    partition: int = 0
    offset: int = 0


class EventsRequest(_Lenient, frozen=True, kw_only=True):
    """Events of one instance (subject names it) after `after` (a version). `limit` is at most 1,000."""

    after: int = 0
    limit: int = 500


class EventsReply(_Lenient, frozen=True, kw_only=True):
    events: list[EventView]
    more: bool = False


class TailRequest(_Lenient, frozen=True, kw_only=True):
    """Events of the whole tenant after these offsets (partition → offset); none: from the end."""

    after: dict[str, int] | None = None
    limit: int = 500


class TailReply(_Lenient, frozen=True, kw_only=True):
    events: list[EventView]
    after: dict[str, int]


class MemosRequest(_Lenient, frozen=True, kw_only=True):
    after: int = 0


class MemosReply(_Lenient, frozen=True, kw_only=True):
    memos: list[Memo]
    more: bool = False


class PositionRequest(_Lenient, frozen=True, kw_only=True):
    """Was report `seq` of this claim accepted?"""

    attempt: int
    nonce: str
    seq: int


class PositionReply(_Lenient, frozen=True, kw_only=True):
    outcome: Literal["accepted", "rejected", "pending"]
    reason: str = ""


class WorkflowView(_Lenient, frozen=True, kw_only=True):
    id: str
    kind: str
    code_version: str
    description: str
    parameters: Raw
    options: Options
    registered_at: int
    workers: list[str]
    hosted_until: int | None = None
