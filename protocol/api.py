"""The API's questions and answers about instances, workflows and the platform itself; `configuration` has the rest.

Invariant: a field that one side does not know is passed over, so that a platform and its clients may differ in version.
Times are integer microseconds since 1970.
"""

from typing import Literal

import msgspec
from msgspec import Raw

from .blobs import Blob
from .errors import WireError
from .messages import Memo, Status
from .records import NO_DATA, Image, Options, Parent


class Lenient(msgspec.Struct, frozen=True, kw_only=True):
    """What all of the API's messages are."""


class Reply(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope of every API answer: `data`, or `error`."""

    data: Raw = NO_DATA
    error: WireError | None = None


class Info(Lenient, frozen=True, kw_only=True):
    deployment: str
    partitions: int
    version: str
    now_us: int


class Registration(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow that a worker hosts. `parameters`: JSON Schema of its input object."""

    workflow: str
    kind: str = "pool"
    code_version: str = ""
    parameters: Raw = Raw(b"{}")
    options: Options = Options()
    description: str = ""


class RegisterRequest(Lenient, frozen=True, kw_only=True):
    worker: str
    workflows: list[Registration]


class RegisterReply(Lenient, frozen=True, kw_only=True):
    """`consumers`: for each workflow the run queue's consumer to pull from. `images`: what those are made of now that
    are registered with an image; only a runner is told."""

    consumers: dict[str, str]
    stream: str
    images: dict[str, Image] = {}


class ForkedFrom(Lenient, frozen=True, kw_only=True):
    """Where a fork comes from."""

    id: str
    version: int


class ConsumersRequest(Lenient, frozen=True, kw_only=True):
    """From a runner: where do run requests of its kind wait? It is shown as who hosts these workflows."""

    runner: str
    kind: str


class InstanceView(Lenient, frozen=True, kw_only=True, omit_defaults=False):
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


class ListRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`cursor` is the last page's `next`. `limit` is at most 1,000."""

    status: Status | None = None
    workflow: str | None = None
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str | None = None


class ListReply(Lenient, frozen=True, kw_only=True):
    instances: list[InstanceView]
    next: str | None = None


class EventView(Lenient, frozen=True, kw_only=True):
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


class EventsRequest(Lenient, frozen=True, kw_only=True):
    """Events of one instance (subject names it) after `after` (a version). `limit` is at most 1,000."""

    after: int = 0
    limit: int = 500


class EventsReply(Lenient, frozen=True, kw_only=True):
    events: list[EventView]
    more: bool = False


class TailRequest(Lenient, frozen=True, kw_only=True):
    """Events of the whole tenant after these offsets (partition → offset); none: from the end."""

    after: dict[str, int] | None = None
    limit: int = 500


class TailReply(Lenient, frozen=True, kw_only=True):
    events: list[EventView]
    after: dict[str, int]


class MemosRequest(Lenient, frozen=True, kw_only=True):
    after: int = 0


class MemosReply(Lenient, frozen=True, kw_only=True):
    memos: list[Memo]
    more: bool = False


class PositionRequest(Lenient, frozen=True, kw_only=True):
    """Was report `seq` of this claim accepted?"""

    attempt: int
    nonce: str
    seq: int


class PositionReply(Lenient, frozen=True, kw_only=True):
    outcome: Literal["accepted", "rejected", "pending"]
    reason: str = ""


class ForkRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
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


class WorkflowView(Lenient, frozen=True, kw_only=True):
    id: str
    kind: str
    code_version: str
    description: str
    parameters: Raw
    options: Options
    registered_at: int
    workers: list[str]
    hosted_until: int | None = None
