"""How an instance comes to be: `start`, and `registered` by a script that runs already.

Invariants: an id names one workflow with one input for one parent; the same again is the same instance.
"""

from msgspec.structs import replace

from runtara.protocol.errors import IllegalTransition, Malformed, RuntaraError, StartConflict
from runtara.protocol.events import InstanceCreated, InstanceQueued
from runtara.protocol.ids import is_id
from runtara.protocol.limits import MAX_LABEL_LENGTH, MAX_LABELS, MAX_NAME_LENGTH
from runtara.protocol.messages import Status
from runtara.protocol.records import Options, Registered, Start
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
    error = _fault(record)
    if error is not None:
        return refused(error)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        options=record.options or Options(),
        labels=record.labels,
        parent=record.parent,
        origin="schedule" if record.schedule is not None else "start",
    )
    return Decision(events=(created, InstanceQueued(attempt=1, cause="start")))


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
    error = _fault(record)
    if error is not None:
        return refused(error)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        options=replace(record.options or Options(), runner=EXTERNAL),
        labels=record.labels,
        origin="registered",
    )
    return Decision(events=(created, claimed(record, 1, source)))


def _is_same(state: State, record: Start) -> bool:
    return (
        state.workflow == record.workflow
        and state.parent == record.parent
        and state.input_digest == input_digest(record.input)
    )


def _fault(record: Start | Registered) -> RuntaraError | None:
    """What the frame's decoder does not look into."""
    if record.options is not None and not is_id(record.options.runner):
        return Malformed(reason="options.runner is not a legal id")
    parent = record.parent if isinstance(record, Start) else None
    if parent is not None and not is_id(parent.instance):
        return Malformed(reason="parent.instance is not a legal id")
    schedule = record.schedule if isinstance(record, Start) else None
    if schedule is not None and not is_id(schedule):
        return Malformed(reason="schedule is not a legal id")
    if len(record.labels) > MAX_LABELS:
        return Malformed(reason=f"more than {MAX_LABELS} labels")
    for name, value in record.labels.items():
        if not name.isprintable() or not value.isprintable():
            return Malformed(reason="a label has control characters")
        if len(name) > MAX_NAME_LENGTH or len(value) > MAX_LABEL_LENGTH:
            return Malformed(reason=f"label {name[:40]!r} is too long")
    return None
