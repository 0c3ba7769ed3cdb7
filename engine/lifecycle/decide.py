"""`decide(state, record, now) -> Decision`: the one place where races are settled. Pure, and raises for no input.

Everything anyone says to the platform comes here in journal order; what is not decided here does not happen. `now` is
the journal's clock. Whether the record's subject allowed it was checked before (`envelope`), and so was the token of an
engine's own records.

Prior art: the decider pattern (decide, evolve). Rejected: a class for each state, since most rules cut across them.
"""

from typing import assert_never

from runtara.protocol.errors import InstanceNotFound, Malformed
from runtara.protocol.records import (
    Absent,
    AnyRecord,
    AnyReport,
    Cancel,
    Cancelled,
    Checkpointed,
    ChildDone,
    Compensating,
    Completed,
    Continued,
    Custom,
    Exited,
    Failed,
    Fork,
    Log,
    Owner,
    Parked,
    Pause,
    Progress,
    Registered,
    Resume,
    Retry,
    Signal,
    Start,
    Started,
    StepFailure,
    Suspended,
    TimerDue,
    Unparked,
    Unreadable,
    WorkerLost,
    WorkflowForgotten,
    WorkflowRegistered,
)
from runtara.protocol.subjects import Source

from . import claims, control, forking, parks, reports, starting, wakes
from .decision import STALE, Decision, refused, stale_claim
from .endings import end_attempt
from .state import State

AnyControl = Signal | Pause | Resume | Cancel | Retry


def decide(state: State | None, record: AnyRecord, now: int, *, source: Source) -> Decision:
    """What `record`, coming from `source`, does to an instance in `state` (None: there is no such instance)."""
    if type(record) is Checkpointed and state is not None:
        return reports.checkpointed(state, record, now, source)
    match record:
        case Start() | Fork() | Registered():
            return _create(state, record, now, source)
        case Started():
            return claims.started(state, record, now, source)
        case TimerDue():
            return wakes.timer_fired(state, record, now)
        case ChildDone():
            return wakes.child_done(state, record, now)
        case Exited() | WorkerLost() | Absent():
            return claims.lost(state, record, now)
        case Signal() | Pause() | Resume() | Cancel() | Retry():
            return _control(state, record, now, source)
        case Progress() | Log():
            if state is None:
                return stale_claim(state, record.instance, record.attempt)
            return reports.observed(state, record)
        case Owner() | WorkflowRegistered() | WorkflowForgotten():  # no instance's business
            return STALE
        case _:
            return _report(state, record, now, source)


def _create(state: State | None, record: Start | Fork | Registered, now: int, source: Source) -> Decision:
    match record:
        case Start():
            return starting.start(state, record)
        case Fork():
            return forking.fork(state, record)
        case Registered():
            return starting.registered(state, record, now, source)
        case _:
            assert_never(record)


def _control(state: State | None, record: AnyControl, now: int, source: Source) -> Decision:
    if state is None:
        tenant = source.tenant or record.tenant or ""
        return refused(InstanceNotFound(instance=record.instance, tenant=tenant))
    match record:
        case Signal():
            return wakes.signal(state, record, now)
        case Pause():
            return control.pause(state, record, now)
        case Resume():
            return control.resume(state, record, now)
        case Cancel():
            return control.cancel(state, record, now)
        case Retry():
            return control.retry(state, record, now)
        case _:
            assert_never(record)


def _report(state: State | None, record: AnyReport | Unreadable, now: int, source: Source) -> Decision:
    if state is None:
        return stale_claim(state, record.instance, record.attempt)
    unusual = reports.unclaimed(state, record, now, source)
    if unusual is not None:
        return unusual
    match record:
        case Parked() | Unparked() | Suspended():
            return _park(state, record, now)
        case Checkpointed() | StepFailure() | Custom() | Compensating():
            return _recorded(state, record, now, source)
        case Completed() | Failed() | Cancelled():
            return reports.ended(state, record)
        case Continued():
            return reports.continued(state, record, now)
        case Unreadable():
            return end_attempt(state, record, now, Malformed(reason=record.reason))
        case _:
            assert_never(record)


def _park(state: State, record: Parked | Unparked | Suspended, now: int) -> Decision:
    match record:
        case Parked():
            return parks.parked(state, record, now)
        case Unparked():
            return parks.unparked(state, record, now)
        case Suspended():
            return parks.suspended(state, record, now)
        case _:
            assert_never(record)


def _recorded(
    state: State, record: Checkpointed | StepFailure | Custom | Compensating, now: int, source: Source
) -> Decision:
    match record:
        case Checkpointed():
            return reports.checkpointed(state, record, now, source)
        case StepFailure():
            return reports.step_failed(state, record, now)
        case Custom():
            return reports.custom(state, record, now)
        case Compensating():
            return reports.compensating(state, record, now)
        case _:
            assert_never(record)
