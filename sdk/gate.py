"""The gate before every operation: open while the instance may go on, closed when it must leave, frozen at its end.

A pause or drain is polite: steps in flight finish, and the instance leaves when code arrives at the closed gate
and nothing is in flight. What a `checkpoint` guards is therefore not cut in half. Code that is neither in a step
nor comes to the gate is given `POLITE_SECONDS`.

When the instance is undone (`undoing`), recorded keys still answer, and nothing new begins: whoever tries is held until
the code is stopped, and once it is (`unwound`) sees its end at once.

Invariants: `frozen` never goes back; past it nothing passes, every call raises CancelledError, also while user
code unwinds; `leave` is called at most once between two changes, and never while a step is in flight unless forced.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from .ports import Clock, Why

POLITE_SECONDS: Final = 10.0


class Gate:
    """`shut` is what the hot path looks at."""

    def __init__(self, leave: Callable[[], None], clock: Clock) -> None:
        self._clock = clock
        self.shut = False
        self.frozen = False
        self.why: Why | None = None
        self.reason = ""
        self.in_flight = 0
        self.undoing = False
        self.unwound = False
        self._leave = leave
        self._waiting = 0
        self._impatient = False
        self._reopened = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def close(self, why: Why, reason: str = "") -> None:
        """Let the instance leave politely."""
        self.why, self.reason, self.shut = why, reason, True
        self._reopened.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLITE_SECONDS, self._lose_patience)
        self._leave_if_quiet()

    def reopen(self) -> None:
        """The pause was taken back."""
        if not self.frozen:
            self.why, self.shut, self._impatient = None, False, False
            self._cancel_timer()
            self._reopened.set()

    def freeze(self, why: Why | None = None, reason: str = "") -> None:
        """The last record is decided."""
        self.shut = self.frozen = True
        if why is not None:
            self.why, self.reason = why, reason
        self._cancel_timer()

    async def passing(self, *, in_step: bool = False) -> None:
        """Wait before the closed gate, unless a step in flight calls. Raises `CancelledError` once frozen."""
        while self.shut:
            if self.frozen:
                raise asyncio.CancelledError(self.why or "the instance has ended")
            if in_step:
                return
            self._waiting += 1
            try:
                self._leave_if_quiet()
                await self._reopened.wait()
            finally:
                self._waiting -= 1

    async def hold(self) -> None:
        """Where something new would begin while the instance is undone. Never returns."""
        if not self.unwound:
            self.began_waiting()
            try:
                await asyncio.get_running_loop().create_future()  # until the task is cancelled
            finally:
                self.ended_waiting()
        raise asyncio.CancelledError(self.why or "the instance is being undone")

    def began_waiting(self) -> None:
        """Somebody is blocked where nothing is in flight, so that the instance may leave."""
        self._waiting += 1
        if self.shut:
            self._leave_if_quiet()

    def ended_waiting(self) -> None:
        self._waiting -= 1

    def landed(self) -> None:
        """A step is no longer in flight: its record is queued, or it waits for its next try."""
        self.in_flight -= 1
        if self.shut:
            self._leave_if_quiet()

    def _leave_if_quiet(self) -> None:
        if not self.frozen and self.in_flight == 0 and (self._waiting or self._impatient):
            self._leave()

    def _lose_patience(self) -> None:
        self._timer = None
        self._impatient = True
        self._leave_if_quiet()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
