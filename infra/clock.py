"""The journal's clock, as a process knows it.

Deadlines in the log are the journal's: it has one clock, and the machines around it have many, some of which are wrong
or jump. A process takes what it sees of that clock (store times, the time in the answer to a claim) and counts on from
there by a steady clock, which nobody can set and which goes on while the machine is suspended.

Invariants: it never runs back, as the journal's own does not; what it has seen was on its way for a while, so it is
behind rather than ahead, and nothing that waits for it is early.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Final

JUMP_US: Final = 1_000_000  # a journal's clock that is that far behind what we thought was set back
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class JournalClock:
    """Without having `seen` anything it stands at the machine's start, long ago: nothing is due, differences hold."""

    def __init__(self) -> None:
        self._ahead_us = 0  # of the steady clock
        self._latest_us = 0

    @property
    def is_known(self) -> bool:
        return self._latest_us > 0

    def seen(self, journal_us: int) -> None:
        """The journal's clock has just shown, or did so a moment ago, `journal_us`."""
        ahead_us = journal_us - _steady_us()
        if ahead_us > self._ahead_us or self._ahead_us - ahead_us > JUMP_US or not self._latest_us:
            self._ahead_us = ahead_us
        self._latest_us = max(self._latest_us, journal_us)

    def now_us(self) -> int:
        return max(self._latest_us, _steady_us() + self._ahead_us)

    def seconds_until(self, due_us: int) -> float:
        """Negative if that is past."""
        return (due_us - self.now_us()) / 1e6

    def monotonic(self) -> float:
        """Seconds by the steady clock."""
        return _steady_us() / 1e6

    def utc_us(self) -> int:
        """What the machine's own clock shows, for those who ask what time it is."""
        return time.time_ns() // 1_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(seconds, 0), callback, *args, context=context)


def _steady_us() -> int:
    return time.clock_gettime_ns(_STEADY) // 1_000
