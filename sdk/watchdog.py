"""Notices, from the heartbeats' thread, that code which was told to end keeps the event loop from hearing it.

A worker hears that an instance is cancelled in its event loop. Code that blocks this loop for ever (`while True: pass`
in async code) is never told, nor is anything else in the process. So the heartbeats' thread listens as well. If an
instance was told to cancel, the grace has passed, the loop has not been heard for as long and is not in the code of
another instance, the process has to be replaced.

Invariants: a loop that is blocked by an instance that nobody cancelled is left alone, however long: a long step is
healthy, if impolite. What is read of the loop's state here may be old, and is only looked at, never changed.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.logs import logger
from runtara.protocol.limits import CANCEL_GRACE_SECONDS
from runtara.protocol.messages import CancelControl, Control

from .heartbeat import Pulse, Residence

log = logger("worker")

Attempt = tuple[str, int]
SILENT_LOOKS: Final = 2  # in a row: a whole process that was stopped may be looked at before its loop can run again
_control_decoder: Final[msgspec.json.Decoder[Control]] = msgspec.json.Decoder(Control)


class Watchdog:
    """The ear of one worker's heartbeats. All but the construction belongs to their thread.

    Args:
        subject: where the worker is told things.
        pulse: says how long ago the loop was heard.
        hosts: whether this claim is here.
        blocker: the attempt whose code the loop is in; None if that is nobody's.
        on_blocked: called once, with what it is, for people.
    """

    def __init__(
        self, subject: str, pulse: Pulse, *, hosts: Callable[[Residence], bool], blocker: Callable[[], Attempt | None],
        on_blocked: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.subject = subject
        self._pulse = pulse
        self._hosts = hosts
        self._blocker = blocker
        self._on_blocked = on_blocked
        self._cancelled: dict[Residence, float] = {}
        self._silent_looks = 0
        self._said = False

    def hear(self, msg: Msg) -> None:
        try:
            control = _control_decoder.decode(msg.data)
        except msgspec.MsgspecError:
            return  # the worker counts it
        if isinstance(control, CancelControl):
            claim = (control.instance, control.attempt, control.nonce)
            if self._hosts(claim):
                self._cancelled.setdefault(claim, time.monotonic())

    def look(self) -> None:
        """Called with each heartbeat."""
        self._cancelled = {claim: at for claim, at in self._cancelled.items() if self._hosts(claim)}
        silence, _ = self._pulse.read()
        self._silent_looks = self._silent_looks + 1 if silence >= CANCEL_GRACE_SECONDS else 0
        now = time.monotonic()
        overdue = {claim[:2] for claim, at in self._cancelled.items() if now - at >= CANCEL_GRACE_SECONDS}
        if self._said or self._silent_looks < SILENT_LOOKS or not overdue:
            return
        blocker = self._blocker()
        if blocker is None or blocker in overdue:
            self._said = True
            instance, attempt = blocker or min(overdue)
            log.error("event_loop_blocked", instance=instance, attempt=attempt, seconds=round(silence, 1))
            self._on_blocked(f"instance {instance} blocks the event loop, and was told to cancel")
