"""What the worker of a resident instance has to be told, as messages."""

from runtara.protocol.messages import CancelControl, Control, PauseControl, Resolved, ResumeControl

from ..lifecycle import ControlDue
from .rows import Row, memo_at


def control_messages(row: Row, due: ControlDue) -> list[Control]:
    named = {"instance": row.instance, "nonce": due.nonce}
    messages: list[Control] = []
    if due.pause:
        messages.append(PauseControl(attempt=due.attempt, **named))
    if due.resume:
        messages.append(ResumeControl(attempt=due.attempt, **named))
    if due.cancel:
        messages.append(CancelControl(attempt=due.attempt, reason=due.reason, **named))
    for _, version in due.resolved:
        messages.append(Resolved(attempt=due.attempt, memo=memo_at(row, version), **named))
    return messages
