"""Everything that can go wrong, as one tree.

    RuntaraError
    ├── BadInput                    the caller's mistake; nothing was done
    │   ├── InvalidId, InvalidKey, InvalidInput, InvalidTarget, InvalidSetting, InvalidSchedule, InvalidImage
    │   ├── InvalidAgent, InvalidConnection, InvalidDefinition
    │   ├── KeyNeeded, DuplicateKey, KeyMismatch
    │   ├── StateTooLarge, StateNotRepresentable
    │   └── WrongColour, NoContext
    ├── Refused                     the platform understood and said no
    │   ├── IllegalTransition, StartConflict (InstanceArchived), UnknownWorkflow, InstanceNotFound
    │   ├── UnknownKey, HistoryTooLarge
    │   ├── ScheduleConflict, ScheduleNotFound
    │   ├── WrongPartition, Forbidden, Malformed, NotAllowed, DataInUse
    │   ├── ImageNotFound, ImageInUse, ImageFailed
    │   ├── UnknownAgent, UnknownCapability
    │   ├── CredentialRefused, CredentialNotFound
    │   ├── ConnectionNotFound, ConnectionNotAllowed
    │   ├── DefinitionNotFound, DefinitionInUse
    │   └── TooManySignals, ChildTooDeep
    ├── Unavailable                 try again later; says what is not reachable
    │   ├── PlatformUnreachable, NotConfirmed, ResultTimeout, ExtraMissing, ServerFailed, DockerUnreachable
    │   └── JournalLost, StreamMissing, JournalMismatch, PartitionLost, SealingKeyMissing
    ├── InternalError               ours; carries the id under which the log has it
    └── ExecutionFailed             a workflow's or a step's own outcome
        ├── StepFailed, StepTimeout
        ├── WorkflowFailed, WorkflowTimeout, WorkflowCancelled, CompensationFailed
        ├── ChildFailed, ChildCancelled
        ├── AgentError (in `agents/errors.py`)
        └── SignalTimeout (also a TimeoutError)

    Stopped (BaseException)         an instance must leave its process; not an error, and not for `except Exception`

An error's attributes are its keyword arguments; its text is its class's `template` filled with them. On the
wire it is `{"code": class name, "message": text, "attributes": {…}}`; `from_wire` makes the class again.
"""

from typing import ClassVar

import msgspec


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it travels."""

    code: str
    message: str
    attributes: dict[str, object] = {}


class RuntaraError(Exception):
    """The base of all errors of this library. `attributes` holds what the text was made from."""

    template: ClassVar[str] = "{reason}"

    def __init__(self, **attributes: object) -> None:
        self.attributes = attributes
        for name, value in attributes.items():
            setattr(self, name, value)
        super().__init__(self.template.format_map(_Lenient(attributes)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.attributes)

    def to_wire(self) -> WireError:
        return WireError(code=type(self).__name__, message=str(self), attributes=dict(self.attributes))


class _Lenient(dict[str, object]):
    """A newer peer may leave out an attribute of our template; the text then shows the gap."""

    def __missing__(self, key: str) -> str:
        return f"<{key}?>"


def _rebuild(cls: type[RuntaraError], attributes: dict[str, object]) -> RuntaraError:
    return cls(**attributes)


# the caller's mistake


class BadInput(RuntaraError, ValueError):
    """The caller's mistake. Nothing was done."""


class InvalidId(BadInput):
    template = "{value} is not a legal {kind}: use 1 to 128 letters, digits, '_' or '-'"
    kind: str
    value: str


class InvalidKey(BadInput):
    template = "{key} is not a legal key: use 1 to 1,024 printable characters"
    key: str


class InvalidInput(BadInput):
    template = "the input does not fit {workflow}: {reason}"
    workflow: str
    reason: str


class InvalidTarget(BadInput):
    template = "cannot load {target}: {reason}"
    target: str
    reason: str


class InvalidSetting(BadInput):
    template = "setting {name} cannot be {value!r}: {reason}"
    name: str
    value: object
    reason: str


class InvalidSchedule(BadInput):
    template = "schedule {schedule}: {reason}"
    schedule: str
    reason: str


class InvalidImage(BadInput):
    template = "image {image} cannot be used: {reason}"
    image: str
    reason: str


class InvalidAgent(BadInput):
    template = "agent {agent} cannot be used: {reason}"
    agent: str
    reason: str


class InvalidConnection(BadInput):
    template = "no connection of type {type}: {reason}"
    type: str
    reason: str


class InvalidDefinition(BadInput):
    template = "definition {workflow} cannot be registered: {reason}"
    workflow: str
    reason: str


class KeyNeeded(BadInput):
    template = (
        "argument {argument!r} of {function} has no stable JSON text ({reason}); "
        'name the key: @step(key="…{{an argument}}…") or ctx.step("key", {function}, …)'
    )
    function: str
    argument: str
    reason: str


class DuplicateKey(BadInput):
    template = "key {key!r} was already used in this run; give each operation its own key, or use ctx.scope(…) in loops"
    key: str


class KeyMismatch(BadInput):
    template = "key {key!r} belongs to another operation ({reason}); give this one a key of its own"
    key: str
    reason: str


class StateTooLarge(BadInput):
    template = (
        "the state of {key!r} has {size:,} bytes; the limit is {limit:,}. Store it elsewhere and record a reference"
    )
    key: str
    size: int
    limit: int


class StateNotRepresentable(BadInput):
    template = "{key!r} cannot be recorded as JSON: {path} is {reason}"
    key: str
    path: str
    reason: str


class WrongColour(BadInput):
    template = "{function} is {colour} and cannot be called directly here; use ctx.step({function!r}, {function}, …)"
    function: str
    colour: str


class NoContext(BadInput):
    template = (
        "{function} was called in a worker outside a workflow's context; start the thread with ctx.run_in_thread(…)"
    )
    function: str


# the platform said no


class Refused(RuntaraError):
    """The platform understood the request and refused it."""


class IllegalTransition(Refused):
    template = "cannot {command} {instance}: it is {status}"
    instance: str
    status: str
    command: str


class StartConflict(Refused):
    template = "{instance} exists already with another workflow or input; choose another id"
    instance: str


class InstanceArchived(StartConflict):
    template = "{instance} has ended and is in the archive {archive}; an id is used once, so choose another"
    archive: str


class UnknownWorkflow(Refused):
    template = (
        "no worker has ever registered a workflow named {workflow!r}{hint}; start one with `runtara worker TARGET`"
    )
    workflow: str
    hint: str


class InstanceNotFound(Refused):
    template = "there is no instance {instance!r} in tenant {tenant!r}{hint}"
    instance: str
    tenant: str

    def __init__(self, *, hint: str = "", **attributes: object) -> None:
        super().__init__(hint=hint, **attributes)


class UnknownKey(Refused):
    template = "{instance} has recorded nothing under the key {key!r}{hint}; `runtara log {instance}` shows its keys"
    instance: str
    key: str
    hint: str


class HistoryTooLarge(Refused):
    template = (
        "{instance} cannot be forked there: what is to be copied has {size:,} bytes; the limit is {limit:,}. Fork it "
        "at an earlier key (`--at`)"
    )
    instance: str
    size: int
    limit: int


class ScheduleConflict(Refused):
    template = "schedule {schedule} exists already, with {different}; replace it with --replace, or delete it first"
    schedule: str
    different: str


class ScheduleNotFound(Refused):
    template = "there is no schedule {schedule!r} in tenant {tenant!r}"
    schedule: str
    tenant: str


class WrongPartition(Refused):
    template = (
        "{instance} belongs to partition {expected}, not {actual}; ask the platform for its partition count (api info)"
    )
    instance: str
    expected: int
    actual: int


class Forbidden(Refused):
    template = "a record of type {type} may not be sent on {subject}: {reason}"
    type: str
    subject: str
    reason: str


class Malformed(Refused):
    template = "not a legal message: {reason}"
    reason: str


class TooManySignals(Refused):
    template = "{instance} has {limit:,} signals waiting that nobody asked for; none can be added"
    instance: str
    limit: int


class ChildTooDeep(Refused):
    template = (
        "{instance} would be the {depth}th in a chain of children, and {limit} are allowed; "
        "workflows that call each other in a circle never end"
    )
    instance: str
    depth: int
    limit: int


class StaleClaim(Refused):
    template = "attempt {attempt} of {instance} does not hold the instance: it is {status}"
    instance: str
    attempt: int
    status: str


class ImageNotFound(Refused):
    """`where` is a registry of the platform's, or a Docker Engine."""

    template = "there is no image {image} {where}; {hint}"
    image: str
    where: str
    hint: str


class ImageInUse(Refused):
    template = (
        "{image} is in use by {users}; delete or re-register the workflows (`runtara workflow delete`, `runtara image "
        "register`), and let the instances end"
    )
    image: str
    users: str


class ImageFailed(Refused):
    """What the Docker Engine could not do with it, or what it could not do."""

    template = "image {image}: {reason}"
    image: str
    reason: str


class UnknownAgent(Refused):
    template = "there is no agent {agent!r}{hint}; `runtara agents list` shows them all"
    agent: str
    hint: str


class UnknownCapability(Refused):
    template = "agent {agent} has no capability {capability!r}{hint}; `runtara agents show {agent}` lists its own"
    agent: str
    capability: str
    hint: str


class NotAllowed(Refused):
    template = "the server refused {action} on {subject!r}: this credential has no right to it"
    action: str
    subject: str


class CredentialRefused(Refused):
    template = "no credential: {reason}"
    reason: str


class CredentialNotFound(Refused):
    template = "tenant {tenant} has no such credential that is still good; see `runtara credential list --all`"
    tenant: str


class ConnectionNotFound(Refused):
    template = (
        "there is no connection {connection!r} in tenant {tenant!r}; `runtara connections set {connection} --type …` "
        "makes it"
    )
    connection: str
    tenant: str


class ConnectionNotAllowed(Refused):
    template = (
        "{instance} may not use the connection {connection!r}: {reason}; name it where the workflow is made, "
        "@workflow(connections=({connection!r},))"
    )
    instance: str
    connection: str
    reason: str


class DefinitionNotFound(Refused):
    """`definition` is a workflow's name, and maybe `@` and a version."""

    template = "there is no registered definition {definition}; {hint}"
    definition: str
    hint: str


class DefinitionInUse(Refused):
    template = (
        "{definition} is in use by {users}; delete the workflow or register another definition of it (`runtara "
        "workflow delete`, `runtara dsl register`), and let the instances end"
    )
    definition: str
    users: str


class DataInUse(Refused):
    template = "{folder} is in use by another `runtara dev` (pid {pid}); stop it, or choose another folder with --data"
    folder: str
    pid: str


# not now


class Unavailable(RuntaraError):
    """Something that is needed cannot be reached, or is not what it was."""


class PlatformUnreachable(Unavailable):
    template = "{reason}; is the platform running? (`runtara dev`, or set RUNTARA_NATS_URL)"
    reason: str


class NotConfirmed(Unavailable):
    template = (
        "accepted, not confirmed: {instance}. The journal has the request; the engine will act on it when it runs again"
    )
    instance: str


class ResultTimeout(Unavailable, TimeoutError):
    template = "{instance} is still {status} after {seconds:g} s"
    instance: str
    status: str
    seconds: float


class ExtraMissing(Unavailable, ImportError):
    template = "this needs the extra {extra!r}: pip install 'runtara[{extra}]'"
    extra: str


class ServerFailed(Unavailable):
    template = "the embedded {server} does not run: {reason}"
    server: str
    reason: str


class DockerUnreachable(Unavailable):
    template = (
        "no Docker Engine answers ({reason}); start it, or name one with DOCKER_HOST "
        "(its socket is open to root and the group docker)"
    )
    reason: str


class JournalLost(Unavailable):
    template = "the journal {stream} lost records that it had acknowledged: {reason}"
    stream: str
    reason: str


class StreamMissing(Unavailable):
    template = "stream {stream} does not exist; `runtara migrate` creates it"
    stream: str


class JournalMismatch(Unavailable):
    template = (
        "the journal {stream} is not the one this database was built from: {reason}. Restore it, or accept the loss: "
        "`runtara engine --accept-journal-loss`"
    )
    stream: str
    reason: str


class SealingKeyMissing(Unavailable):
    template = (
        "{reason}; give the engines the key that sealed them, in RUNTARA_CONNECTIONS_KEY (a new key goes before it) or "
        "in the file connections.key beside their other keys"
    )
    reason: str


class PartitionLost(Unavailable):
    template = "partition {partition} has another owner now"
    partition: int


class InternalError(RuntaraError):
    template = "internal error {id}; the platform's log has the details under this id"
    id: str


# outcomes of user code


class ExecutionFailed(RuntaraError):
    """The outcome of a workflow or a step, not a fault of the platform."""


class StepFailed(ExecutionFailed):
    """A step's tries are used up, or its error is permanent. `type` and `message` are the last error's."""

    template = "step {key!r} failed after {attempts} attempt(s): {type}: {message}"
    key: str
    type: str
    message: str
    attempts: int


class StepTimeout(ExecutionFailed, TimeoutError):
    template = "step {key!r} did not finish within {seconds:g} s"
    key: str
    seconds: float


class WorkflowFailed(ExecutionFailed):
    template = "{instance} failed: {type}: {message}"
    instance: str
    type: str
    message: str


class WorkflowTimeout(ExecutionFailed, TimeoutError):
    template = "{instance} did not finish within {seconds:g} s"
    instance: str
    seconds: float


class WorkflowCancelled(ExecutionFailed):
    template = "{instance} was cancelled{reason}"
    instance: str
    reason: str


class CompensationFailed(ExecutionFailed):
    template = "cancelled, but {reason}"
    reason: str


class ChildFailed(ExecutionFailed):
    template = "child {instance} ({key!r}) failed: {type}: {message}"
    key: str
    instance: str
    type: str
    message: str


class ChildCancelled(ExecutionFailed):
    template = "child {instance} ({key!r}) was cancelled"
    key: str
    instance: str


class SignalTimeout(ExecutionFailed, TimeoutError):
    template = "no signal {name!r} came within the time allowed ({key!r})"
    key: str
    name: str


class Stopped(BaseException):
    """The instance must leave this process (suspended, cancelled, superseded, draining).

    A `BaseException`, so that the `except Exception` of user code in a thread does not mistake the end of
    its process for an error of its own. Async code sees task cancellation instead.
    """

    def __init__(self, reason: str = "the instance must leave its process") -> None:
        super().__init__(reason)
        self.reason = reason


def _subclasses(cls: type[RuntaraError]) -> list[type[RuntaraError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _subclasses(child))]


def from_wire(error: WireError) -> RuntaraError:
    """The error that a peer reported; a code we do not know becomes a plain `Refused` with its text."""
    for cls in _subclasses(RuntaraError):
        if cls.__name__ == error.code:
            return cls(**error.attributes)
    return Refused(reason=error.message)
