"""The API's questions and answers about what is configured: schedules, images, definitions, connections.

Times are integer microseconds since 1970.
"""

from typing import Literal

from msgspec import Raw

from .api import Lenient, Registration
from .blobs import Blob
from .messages import Status
from .records import Image

# schedules


class ScheduleDefinition(Lenient, frozen=True, kw_only=True):
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


class ScheduleCreateRequest(Lenient, frozen=True, kw_only=True):
    """`replace`: where one of that name has another definition, it gets this one and keeps what it remembers."""

    schedule: ScheduleDefinition
    paused: bool = False
    replace: bool = False
    actor: str | None = None


class ScheduleRequest(Lenient, frozen=True, kw_only=True):
    """What all verbs about one schedule ask with. `actor` is who asks."""

    name: str
    actor: str | None = None


class ScheduledInstance(Lenient, frozen=True, kw_only=True):
    """`status` is None if the instance is in an archive."""

    id: str
    status: Status | None


class ScheduleView(Lenient, frozen=True, kw_only=True):
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


class ScheduleListRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`cursor` is the last page's `next`. `limit` is at most 1,000."""

    workflow: str | None = None
    paused: bool | None = None
    labels: dict[str, str] = {}
    limit: int = 100
    cursor: str | None = None


class ScheduleListReply(Lenient, frozen=True, kw_only=True):
    """By name."""

    schedules: list[ScheduleView]
    next: str | None = None


# images


class RegisterImage(Lenient, frozen=True, kw_only=True):
    """`image.version` is the platform's to give. `workflows`: what it runs; their kind and image follow from it."""

    image: Image
    workflows: list[Registration]


class ImagesRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`name`: of one image only."""

    name: str | None = None


class ForgetImage(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Without `version`: all of them."""

    name: str
    version: int | None = None


class ImageView(Lenient, frozen=True, kw_only=True):
    """A version of an image. `hosts`: registered with it; `used_by`: those of them that are still started with it."""

    image: Image
    hosts: list[str]
    used_by: list[str]
    registered_at: int


class RegisteredImage(Lenient, frozen=True, kw_only=True):
    """`created`: nothing like it was there, so it is a new version."""

    view: ImageView
    created: bool


# definitions


class RegisterDefinition(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON workflow. `registration` is what whoever knows the language has read in `document`; what runs it, and the
    version, are the platform's to give."""

    registration: Registration
    document: Raw
    actor: str | None = None


class DefinitionsRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """`workflow`: of one only."""

    workflow: str | None = None


class DefinitionView(Lenient, frozen=True, kw_only=True):
    """A version of a definition. `is_current`: starts take it unless they say another."""

    workflow: str
    version: int
    hash: str
    is_current: bool
    registered_at: int
    registered_by: str | None


class RegisteredDefinition(Lenient, frozen=True, kw_only=True):
    """`created`: the last version was another, so it is a new one."""

    view: DefinitionView
    created: bool


class DefinitionRequest(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Without `version`: the newest, or of `forget_definition` all of them."""

    workflow: str
    version: int | None = None


class DefinitionReply(Lenient, frozen=True, kw_only=True):
    workflow: str
    version: int
    hash: str
    document: Raw


class HostDefinitions(Lenient, frozen=True, kw_only=True):
    """From a worker that hosts every registered definition, and `workflows` besides."""

    worker: str
    workflows: list[str]


# connections


class SetConnection(Lenient, frozen=True, kw_only=True, omit_defaults=True):
    """Make a connection, or put this in its place. `fields` are secrets, and the request shows them to nobody."""

    name: str
    type: str
    fields: Raw
    actor: str | None = None

    def __repr__(self) -> str:
        return f"SetConnection(name={self.name!r}, type={self.type!r}, fields=…)"


class ConnectionView(Lenient, frozen=True, kw_only=True):
    """All that can be read of a connection. `used_by`: workflows that are registered to use it."""

    name: str
    type: str
    used_by: list[str]
    set_at: int
    set_by: str | None


class OpenConnection(Lenient, frozen=True, kw_only=True):
    """From whoever holds the instance that the subject names. `reply`: an inbox of the worker that its claim names."""

    name: str
    reply: str
