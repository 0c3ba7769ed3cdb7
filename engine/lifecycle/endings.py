"""How an attempt ends without a result, and what comes next: the next attempt, a pause, a cancellation or failure.

The order is the rule: a cancel beats a pause, a pause beats the next attempt, and the budget of losses without progress
decides whether there is one. Whoever has used it up is undone before it fails, if there is anything to undo.
"""

import msgspec
from msgspec import Raw

from runtara.protocol.errors import RuntaraError, WireError
from runtara.protocol.events import (
    AttemptLost,
    CheckpointSaved,
    InstanceCancelled,
    InstanceFailed,
    InstancePaused,
    InstanceQueued,
)
from runtara.protocol.ids import FAILED_KEY
from runtara.protocol.limits import MAX_REASON_LENGTH, MAX_RESTART_DELAY_SECONDS
from runtara.protocol.records import AnyRecord

from .clock import SECOND, deadline
from .decision import Decision, Draft
from .keyset import key_hash
from .state import Mode, State


def restart_delay(losses: int) -> int:
    """Microseconds before the attempt after the `losses`-th loss in a row: at once, then 1, 2, 4 … 60 s."""
    if losses <= 1:
        return 0
    return int(min(2 ** min(losses - 2, 30), MAX_RESTART_DELAY_SECONDS) * SECOND)


def requeue(draft: Draft, cause: str, *, mode: Mode | None = None, delay_us: int = 0) -> None:
    """The next attempt, by default in the mode of this one."""
    draft.emit(
        InstanceQueued(
            attempt=draft.state.attempt + 1,
            not_before_us=deadline(draft.now, delay_us) if delay_us else None,
            mode=mode or draft.state.mode,
            cause=cause,
        )
    )


def obey_cancel(draft: Draft) -> None:
    """The attempt that a cancel was waiting for has ended: undo what is to be undone, else it is over."""
    order = draft.state.cancel
    if draft.state.compensations and draft.state.mode == "normal":
        requeue(draft, "cancel", mode="cancelling")
    else:
        draft.emit(InstanceCancelled(reason=order.reason if order is not None else None))


def lose(draft: Draft, reason: str, detail: str = "", *, counts: bool = True, at_once: bool = False) -> None:
    """The claim ends. `counts`: against the budget; `at_once`: whoever takes the next attempt is there already."""
    detail = detail.replace("\x00", "")[-MAX_REASON_LENGTH:]
    draft.emit(AttemptLost(reason=reason, detail=detail, counts=counts))
    state = draft.state
    if state.cancel is not None and state.mode == "normal":
        obey_cancel(draft)
    elif state.pause:
        draft.emit(InstancePaused())
    elif counts and state.losses >= state.options.restarts:
        _give_up(draft, _exhausted(state, reason, detail))
    else:
        immediate = at_once or not counts or state.external
        requeue(draft, reason, delay_us=0 if immediate else restart_delay(state.losses))


def end_attempt(state: State, record: AnyRecord, now: int, error: RuntaraError) -> Decision:
    """A report of the current claim that cannot be applied: its attempt must not go on as if it had been."""
    draft = Draft(state, record.instance, now)
    lose(draft, "refused", str(error))
    return draft.decision(note="refused", error=error)


def _give_up(draft: Draft, error: WireError) -> None:
    """What an attempt records itself when its code fails with something to undo: the next one only undoes.

    With a budget of its own; when that is used up as well, the instance fails as it is.
    """
    state = draft.state
    if not state.compensations or state.mode == "cancelling" or key_hash(FAILED_KEY) in state.keys:
        draft.emit(InstanceFailed(error=error))
        return
    decision = b'{"kind":"decision","value":' + msgspec.json.encode(error) + b"}"
    draft.emit(CheckpointSaved(key=FAILED_KEY, data=Raw(decision)))
    requeue(draft, "undo")


def _exhausted(state: State, reason: str, detail: str) -> WireError:
    message = f"{state.losses} attempts in a row were lost before anything new was recorded; the last: {reason}"
    if detail:
        message = f"{message}\n{detail}"
    return WireError(
        code="AttemptsLost", message=message, attributes={"attempts": state.losses, "reason": reason, "detail": detail}
    )
