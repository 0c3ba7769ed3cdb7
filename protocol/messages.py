"""Messages beside the journal: run requests, control, heartbeats, answers, hints and the API's requests and replies.

Invariants: all but API replies are strict structs, so what does not parse is ignored and counted by whoever
receives it; control and claim answers name instance, attempt and nonce; hints (`Committed`, `Done`) never
replace asking. Times are integer microseconds since 1970.
"""

from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import Raw

from .blobs import Blob
from .errors import WireError
from .records import NO_DATA, Image, Options, Parent


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
    """`consumers`: for each workflow the run queue's consumer to pull from. `images`: what those are made of now that
    are registered with an image; only a runner is told."""

    consumers: dict[str, str]
    stream: str
    images: dict[str, Image] = {}


class ForkedFrom(_Lenient, frozen=True, kw_only=True):
    """Where a fork comes from."""

    id: str
    version: int


class ConsumersRequest(_Lenient, frozen=True, kw_only=True):
    """From a runner: where do run requests of its kind wait? It is shown as who hosts these workflows."""

    runner: str
    kind: str


class InstanceView(_Lenient, frozen=True, kw_only=True, omit_defaults=False):
    """`input_blob` and `result_blob`: where input and result are, if they are null because they are long."""

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
    input_blob: Blob | None = None
    result: Raw = NO_DATA
    result_blob: Blob | None = None
    error: WireError | None = None
    parent: Parent | None = None
    worker: str | None = None
    progress: tuple[int, int | None] | None = None
    note: str | None = None
    forked_from: ForkedFrom | None = None
    definition: int | None = None


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


class ForkRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Make `instance` out of the one that the subject names; `id`, `actor`, `at` and `reply` are those of a command.

    `set`: answers by key, instead of what was recorded; `set_blobs`: those that went aside, which are null in `set`.
    `input`, `labels`: null for the source's, unless the input is a `blob`. `latest`: with the last version of its
    definition instead of the source's.
    """

    id: str
    instance: str
    reply: str
    at: int = 0
    actor: str | None = None
    at_key: str | None = None
    set: dict[str, Raw] = {}
    set_blobs: dict[str, Blob] = {}
    input: Raw = NO_DATA
    blob: Blob | None = None
    latest: bool = False
    labels: dict[str, str] | None = None


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


# schedules


class ScheduleDefinition(_Lenient, frozen=True, kw_only=True):
    """What is started, and when. Either `cron` (five fields, read in the zone `timezone`) or `every_us`.

    `overlap`: what becomes of a start that is due while an earlier instance has not ended. `catch_up`: which of the
    starts that were missed while no engine ran are made up for.
    """

    name: str
    workflow: str
    cron: str | None = None
    every_us: int | None = None
    timezone: str = "UTC"
    input: Raw = Raw(b"{}")
    blob: Blob | None = None
    labels: dict[str, str] = {}
    overlap: Literal["skip", "allow"] = "skip"
    catch_up: Literal["last", "all", "none"] = "last"


class ScheduleCreateRequest(_Lenient, frozen=True, kw_only=True):
    """`replace`: where one of that name has another definition, it gets this one and keeps what it remembers."""

    schedule: ScheduleDefinition
    paused: bool = False
    replace: bool = False
    actor: str | None = None


class ScheduleRequest(_Lenient, frozen=True, kw_only=True):
    """What all verbs about one schedule ask with. `actor` is who asks."""

    name: str
    actor: str | None = None


class ScheduledInstance(_Lenient, frozen=True, kw_only=True):
    """`status` is None if the instance is in an archive."""

    id: str
    status: Status | None


class ScheduleView(_Lenient, frozen=True, kw_only=True):
    """`upcoming`: the next times it is due, none while it is paused. `last`: what it started, the latest first.

    `problem`: what last kept it from starting an instance, and when. A list has no inputs, no `upcoming`, and one of
    `last`.
    """

    schedule: ScheduleDefinition
    paused: bool
    next_due_us: int | None
    upcoming: list[int]
    last: list[ScheduledInstance]
    problem: str | None
    problem_at: int | None
    created_at: int
    created_by: str | None
    updated_at: int
    updated_by: str | None


class ScheduleListRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`cursor` is the last page's `next`. `limit` is at most 1,000."""

    workflow: str | None = None
    paused: bool | None = None
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str | None = None


class ScheduleListReply(_Lenient, frozen=True, kw_only=True):
    """By name."""

    schedules: list[ScheduleView]
    next: str | None = None


# images


class RegisterImage(_Lenient, frozen=True, kw_only=True):
    """`image.version` is the platform's to give. `workflows`: what it runs; their kind and image follow from it."""

    image: Image
    workflows: list[Registration]


class ImagesRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`name`: of one image only."""

    name: str | None = None


class ForgetImage(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Without `version`: all of them."""

    name: str
    version: int | None = None


class ImageView(_Lenient, frozen=True, kw_only=True):
    """A version of an image. `hosts`: registered with it; `used_by`: those of them that are still started with it."""

    image: Image
    hosts: list[str]
    used_by: list[str]
    registered_at: int


class RegisteredImage(_Lenient, frozen=True, kw_only=True):
    """`created`: nothing like it was there, so it is a new version."""

    view: ImageView
    created: bool


# definitions


class RegisterDefinition(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON workflow. `registration` is what whoever knows the language has read in `document`; what runs it, and the
    version, are the platform's to give."""

    registration: Registration
    document: Raw
    actor: str | None = None


class DefinitionsRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`workflow`: of one only."""

    workflow: str | None = None


class DefinitionView(_Lenient, frozen=True, kw_only=True):
    """A version of a definition. `is_current`: starts take it unless they say another."""

    workflow: str
    version: int
    hash: str
    is_current: bool
    registered_at: int
    registered_by: str | None


class RegisteredDefinition(_Lenient, frozen=True, kw_only=True):
    """`created`: the last version was another, so it is a new one."""

    view: DefinitionView
    created: bool


class DefinitionRequest(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Without `version`: the newest, or of `forget_definition` all of them."""

    workflow: str
    version: int | None = None


class DefinitionReply(_Lenient, frozen=True, kw_only=True):
    workflow: str
    version: int
    hash: str
    document: Raw


class HostDefinitions(_Lenient, frozen=True, kw_only=True):
    """From a worker that hosts every registered definition, and `workflows` besides."""

    worker: str
    workflows: list[str]


# connections


class SetConnection(_Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Make a connection, or put this in its place. `fields` are secrets, and the request shows them to nobody."""

    name: str
    type: str
    fields: Raw
    actor: str | None = None

    def __repr__(self) -> str:
        return f"SetConnection(name={self.name!r}, type={self.type!r}, fields=…)"


class ConnectionView(_Lenient, frozen=True, kw_only=True):
    """All that can be read of a connection. `used_by`: workflows that are registered to use it."""

    name: str
    type: str
    used_by: list[str]
    set_at: int
    set_by: str | None


class OpenConnection(_Lenient, frozen=True, kw_only=True):
    """From whoever holds the instance that the subject names. `reply`: an inbox of the worker that its claim names."""

    name: str
    reply: str


class OpenedConnection(_Strict, frozen=True, kw_only=True):
    """To that inbox: the one message that has a connection's secrets. `fields` is an object."""

    name: str
    type: str
    fields: Raw

    def __repr__(self) -> str:
        return f"OpenedConnection(name={self.name!r}, type={self.type!r}, fields=…)"
