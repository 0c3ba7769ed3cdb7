"""Claims: who gets an attempt, who keeps it, and how it is taken away.

Invariants: the first `started` for a queued, due attempt wins, in journal order; the same claim again is answered
again; the same source with another nonce has started anew and gets the next attempt; everybody else is told that it
does not hold the instance. A worker whose id names a workflow claims nothing of another one.
"""

from runtara.protocol.errors import Forbidden, InstanceNotFound
from runtara.protocol.events import AttemptStarted, ResourcesUsed
from runtara.protocol.ids import may_host
from runtara.protocol.messages import Status
from runtara.protocol.records import Absent, Exited, Registered, Started, WorkerLost
from runtara.protocol.subjects import Source

from .decision import DUPLICATE, STALE, Decision, Draft, refused, stale_claim
from .endings import lose
from .evolve_claims import RESTARTED
from .state import Claim, State


def source_name(source: Source) -> str:
    """Who speaks, as AttemptStarted keeps it."""
    if source.worker is not None:
        return f"w.{source.worker}"
    if source.instance is not None:
        return f"i.{source.instance}"
    return f"r.{source.runner}"


def started(state: State | None, record: Started, now: int, source: Source) -> Decision:
    if state is None:
        return Decision(error=InstanceNotFound(instance=record.instance, tenant=source.tenant), note="stale")
    if source.worker is not None and not may_host(source.worker, state.workflow):
        reason = f"this worker hosts another workflow than {state.workflow}"
        return refused(Forbidden(type="started", subject=str(source.channel), reason=reason))
    if state.claim is not None:
        return _while_running(state, state.claim, record, now, source)
    is_open = state.status is Status.QUEUED and record.attempt == state.attempt and not state.external
    if not is_open or not _is_due(state, now):
        return stale_claim(state, record.instance, record.attempt)
    return Decision(events=(claimed(record, state.attempt, source),))


def start_again(state: State, record: Started | Registered, now: int, source: Source) -> Decision:
    """The process behind the claim is a new one: its attempt is lost, and it takes the next.

    Unless that loss has paused or ended the instance; but a script that is started again by hand resumes it.
    """
    draft = Draft(state, record.instance, now)
    lose(draft, RESTARTED, at_once=True)
    after = draft.state
    if after.status is Status.QUEUED:
        draft.emit(claimed(record, after.attempt, source))
    elif after.status is Status.PAUSED and isinstance(record, Registered):
        draft.emit(claimed(record, after.attempt + 1, source))
    else:
        return draft.decision(note="stale", error=stale_claim(after, record.instance, after.attempt).error)
    return draft.decision()


def lost(state: State | None, record: Exited | WorkerLost | Absent, now: int) -> Decision:
    """Accepted for a claimed attempt, whether or not its code had begun; anything older is about somebody else.

    What the process used is kept also of an attempt that has ended by its own report.
    """
    if state is None:
        return STALE
    draft = Draft(state, record.instance, now)
    if isinstance(record, Exited):
        _measure(draft, record)
    claim = state.claim
    if claim is None or not _is_about(claim, record):
        return draft.decision() if draft.events else STALE
    match record:
        case Exited():
            lose(draft, f"exited: {record.reason}" if record.reason else "exited", record.stderr)
        case WorkerLost():
            lose(draft, "worker lost", record.reason)
        case Absent():
            lose(draft, "absent", "its worker no longer hosts it")
    return draft.decision()


def _while_running(state: State, claim: Claim, record: Started, now: int, source: Source) -> Decision:
    launch = claim.launch
    if record.nonce == claim.nonce:  # whatever attempt it names: one that started again names its first
        return DUPLICATE
    if launch is not None and record.nonce == launch.nonce:  # the runner again, after its container took over
        return DUPLICATE
    if _takes_over(claim, record):
        return Decision(events=(claimed(record, claim.attempt, source),))
    told = launch.attempt if launch is not None and not claim.reserved else claim.attempt
    is_restart = claim.source == source_name(source) and record.attempt == told and record.nonce not in state.past
    if is_restart:
        return start_again(state, record, now, source)
    return stale_claim(state, record.instance, record.attempt)


def _takes_over(claim: Claim, record: Started) -> bool:
    """Whether the container that a runner launched speaks for the first time, with the token it was given."""
    launch = claim.launch
    return (
        claim.reserved
        and launch is not None
        and launch.token is not None
        and record.by == "worker"
        and record.token == launch.token
        and record.attempt == launch.attempt
    )


def is_launched(state: State, nonce: str) -> bool:
    """Whether what a runner launched, after it had claimed with `nonce`, holds the instance now."""
    claim = state.claim
    return claim is not None and claim.launch is not None and claim.launch.nonce == nonce


def _is_due(state: State, now: int) -> bool:
    if state.restart_timer is None:
        return True
    return now >= state.timers[state.restart_timer].due_us


def _is_about(claim: Claim, record: Exited | WorkerLost | Absent) -> bool:
    if (record.attempt, record.worker) == (claim.attempt, claim.worker):
        return True
    launch = claim.launch
    return (
        isinstance(record, Exited)
        and launch is not None
        and (record.attempt, record.worker) == (launch.attempt, launch.worker)
    )


def _measure(draft: Draft, record: Exited) -> None:
    """Once for an attempt: what is told again, or of one that is long over, changes nothing."""
    state = draft.state
    known = [claim for claim in (state.claim, state.ended) if claim is not None and _is_about(claim, record)]
    if known and record.attempt > state.measured and (record.memory_bytes, record.cpu_us) != (None, None):
        draft.emit(ResourcesUsed(attempt=record.attempt, memory_bytes=record.memory_bytes, cpu_us=record.cpu_us))


def claimed(record: Started | Registered, attempt: int, source: Source) -> AttemptStarted:
    reserved = isinstance(record, Started) and record.by == "runner"
    return AttemptStarted(
        attempt=attempt,
        nonce=record.nonce,
        worker=record.worker,
        source=source_name(source),
        reserved=reserved,
        token=record.token if reserved and isinstance(record, Started) else None,
        external=isinstance(record, Registered),
    )
