"""The journal's clock, as a process knows it.

Deadlines in the log are the journal's: it has one clock, and workers have many, some of which are wrong or jump. An
attempt learns what that clock showed when its claim was decided, and counts from there by its own monotonic clock.

Invariant: it is behind the journal's clock (by what the answer took), never ahead, so nothing waits too short.
"""

import time


class JournalClock:
    """`now_us`: what the clock showed when this is made. Without it only differences mean something."""

    def __init__(self, now_us: int = 0) -> None:
        self._ahead_us = now_us - _monotonic_us()

    def now_us(self) -> int:
        return _monotonic_us() + self._ahead_us

    def seconds_until(self, due_us: int) -> float:
        """Negative if that is past."""
        return (due_us - self.now_us()) / 1e6


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000
