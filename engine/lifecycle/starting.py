"""How an instance comes to be: `start`, and `registered` by a script that runs already.

Invariants: an id names one workflow with one input for one parent; the same again is the same instance.
"""

from msgspec.structs import replace

from runtara.protocol.errors import (
    ChildTooDeep,
    DefinitionNotFound,
    IllegalTransition,
    Malformed,
    RuntaraError,
    StartConflict,
)
from runtara.protocol.events import InstanceCreated, InstanceFailed, InstanceQueued
from runtara.protocol.ids import is_id
from runtara.protocol.labels import label_fault
from runtara.protocol.limits import MAX_CHILD_DEPTH
from runtara.protocol.messages import Status
from runtara.protocol.records import Fork, Options, Registered, Start
from runtara.protocol.subjects import Source

from .claims import claimed, source_name, start_again
from .decision import DUPLICATE, Decision, refused, stale_claim
from .evolve import input_digest
from .state import State

EXTERNAL = "external"  # the runner kind of an instance that its own script runs


def start(state: State | None, record: Start) -> Decision:
    if state is not None:
        is_over = record.parent is not None and state.status.is_terminal  # it has told its parent, and never will again
        is_same = _is_same(state, record) and not is_over
        return DUPLICATE if is_same else refused(StartConflict(instance=record.instance))
    error = start_fault(record)
    if error is not None:
        return refused(error)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        blob=record.blob,
        options=record.options or Options(),
        labels=record.labels,
        parent=record.parent,
        origin="schedule" if record.schedule is not None else "start",
    )
    return Decision(events=(created, InstanceQueued(attempt=1, cause="start")))


def start_unknown(state: State | None, record: Start | Fork, error: RuntaraError) -> Decision:
    """A start that nothing can run. A child is created and fails: the same request meets it when it comes again.

    (If nothing of it were kept, a request that is sent again after its workflow was registered would start a child
    whose parent was told that there is none.)
    """
    if state is not None and isinstance(record, Start):
        return start(state, record)
    if isinstance(record, Fork) or record.parent is None or start_fault(record) is not None:
        return refused(error)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        blob=record.blob,
        options=record.options or Options(),
        labels=record.labels,
        parent=record.parent,
    )
    return Decision(events=(created, InstanceFailed(error=error.to_wire())))


def with_registration(record: Start | Fork, kind: str, registered: Options) -> Start | Fork:
    """The record with the options that the log keeps.

    Whoever starts or forks may choose much, but not what runs it, nor what that may open: kind, image with its limits,
    and connections are those that the workflow is registered with now. Of its definition the last version is taken,
    unless an earlier one is asked for, or is the source's.
    """
    definition = _asked_version(record) or registered.definition if registered.definition is not None else None
    options = record.options or registered
    if record.options is None and definition != registered.definition:
        options = Options(restarts=registered.restarts)  # the others are those of the last version
    options = replace(
        options, runner=kind, image=registered.image, connections=registered.connections, definition=definition
    )
    return replace(record, options=options)


def version_fault(record: Start | Fork, registered: Options) -> RuntaraError | None:
    """Why the version that is asked for cannot be taken. (One that was deleted still has its number.)"""
    version, last = _asked_version(record), registered.definition
    if version is None or (last is not None and 1 <= version <= last):
        return None
    if isinstance(record, Fork) and last is None:
        return None  # its workflow is code now
    hint = "it is code of a worker" if last is None else f"the last version is {last}"
    return DefinitionNotFound(definition=f"{record.workflow}@{version}", hint=hint)


def _asked_version(record: Start | Fork) -> int | None:
    if isinstance(record, Start):
        return record.version
    return record.options.definition if record.options is not None else None


def registered(state: State | None, record: Registered, now: int, source: Source) -> Decision:
    if state is None:
        return _create(record, source)
    if record.workflow != state.workflow:
        return refused(StartConflict(instance=record.instance))
    if state.status.is_terminal:
        error = IllegalTransition(instance=record.instance, status=state.status.value, command="run a script as")
        return Decision(error=error, note="stale")
    claim = state.claim
    if claim is not None and claim.nonce == record.nonce:
        return DUPLICATE
    if record.nonce in state.past:
        return stale_claim(state, record.instance, state.attempt)
    if claim is not None:
        if state.external and claim.source == source_name(source):
            return start_again(state, record, now, source)
        return stale_claim(state, record.instance, state.attempt)
    attempt = state.attempt if state.status is Status.QUEUED else state.attempt + 1
    return Decision(events=(claimed(record, attempt, source),))


def _create(record: Registered, source: Source) -> Decision:
    error = start_fault(record)
    if error is not None:
        return refused(error)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        blob=record.blob,
        options=replace(record.options or Options(), runner=EXTERNAL, image=None, connections=(), definition=None),
        labels=record.labels,
        origin="registered",
    )
    return Decision(events=(created, claimed(record, 1, source)))


def _is_same(state: State, record: Start) -> bool:
    return (
        state.workflow == record.workflow
        and state.parent == record.parent
        and state.input_digest == input_digest(record.input, record.blob)
    )


def start_fault(record: Start | Registered | Fork) -> RuntaraError | None:
    """What the frame's decoder does not look into."""
    if record.options is not None and not is_id(record.options.runner):
        return Malformed(reason="options.runner is not a legal id")
    parent = record.parent if isinstance(record, Start) else None
    if parent is not None and not is_id(parent.instance):
        return Malformed(reason="parent.instance is not a legal id")
    schedule = record.schedule if isinstance(record, Start) else None
    if schedule is not None and not is_id(schedule):
        return Malformed(reason="schedule is not a legal id")
    if parent is not None and parent.depth > MAX_CHILD_DEPTH:
        return ChildTooDeep(instance=record.instance, depth=parent.depth, limit=MAX_CHILD_DEPTH)
    fault = label_fault(record.labels)
    return None if fault is None else Malformed(reason=fault)
