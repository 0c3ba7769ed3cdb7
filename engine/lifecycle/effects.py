"""`effects(state)`: what the platform owes the world for a state. The loop compares it with the evidence and acts.

Pure, and complete: recomputed at any time it covers everything that may not have been let out yet; doing all of it
again changes nothing.
"""

import msgspec

from runtara.protocol.messages import Status

from .state import State


class RunDue(msgspec.Struct, frozen=True, kw_only=True):
    """A run request for `attempt` must be in the queue. `since`: the version of the event that made it due."""

    attempt: int
    since: int


class ControlDue(msgspec.Struct, frozen=True, kw_only=True):
    """What the resident attempt has to be told, again and again until a report shows that it knows.

    `resolved` names keys whose outcome came after the claim was answered, with the version of the event holding it.
    """

    worker: str
    attempt: int
    nonce: str
    pause: bool = False
    resume: bool = False
    cancel: bool = False
    reason: str | None = None
    resolved: tuple[tuple[str, int], ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.pause or self.resume or self.cancel or self.resolved)


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """`purge`: an attempt whose request may still wait in the queue and must not run. `timers`: version → due_us.

    `lease`: the worker that must be heard of, while the instance runs.
    """

    run_request: RunDue | None = None
    purge: int | None = None
    control: ControlDue | None = None
    timers: dict[int, int] = {}
    lease: str | None = None


def effects(state: State) -> Effects:
    claim = state.claim
    return Effects(
        run_request=_run_due(state),
        purge=state.requested if state.status is not Status.QUEUED else None,
        control=_control_due(state),
        timers={version: timer.due_us for version, timer in state.timers.items()},
        lease=claim.worker if claim is not None else None,
    )


def _run_due(state: State) -> RunDue | None:
    if state.status is not Status.QUEUED or state.external or state.restart_timer is not None:
        return None
    return RunDue(attempt=state.attempt, since=state.queued_at)


def _control_due(state: State) -> ControlDue | None:
    claim = state.claim
    if claim is None or claim.reserved:
        return None
    cancel = state.cancel if state.mode == "normal" else None  # in mode cancelling its claim was told
    due = ControlDue(
        worker=claim.worker,
        attempt=claim.attempt,
        nonce=claim.nonce,
        pause=state.pause,
        resume=not state.pause and claim.resumed_at == claim.last_seq,
        cancel=cancel is not None,
        reason=cancel.reason if cancel is not None else None,
        resolved=tuple((key, told.version) for key, told in state.unseen.items() if told.kind != "retry"),
    )
    return None if due.is_empty else due
