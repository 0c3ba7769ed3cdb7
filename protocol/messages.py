"""Messages beside the journal: run requests, control, heartbeats, answers and hints. Those of the API are in `api`.

Invariants: all are strict structs, so what does not parse is ignored and counted by whoever receives it; control and
claim answers name instance, attempt and nonce; hints (`Committed`, `Done`) never replace asking. Times are integer
microseconds since 1970.
"""

from enum import StrEnum

import msgspec
from msgspec import Raw

from .blobs import Blob
from .errors import WireError
from .records import NO_DATA, Options


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


# the run queue


class RunRequest(_Strict, frozen=True, kw_only=True):
    """`first`: the first publication of this request, so that attempt 1 may start before its claim is answered."""

    tenant: str
    instance: str
    workflow: str
    attempt: int
    first: bool = False
    input: Raw = Raw(b"{}")
    blob: Blob | None = None
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
    blob: Blob | None = None
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
    blob: Blob | None = None
    error: WireError | None = None


class Ended(_Strict, frozen=True, kw_only=True):
    """To whoever has just started `instance`."""

    instance: str
    done: Done


# to whom a connection is opened


class OpenedConnection(_Strict, frozen=True, kw_only=True):
    """To that inbox: the one message that has a connection's secrets. `fields` is an object."""

    name: str
    type: str
    fields: Raw

    def __repr__(self) -> str:
        return f"OpenedConnection(name={self.name!r}, type={self.type!r}, fields=…)"
