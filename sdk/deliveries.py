"""What a worker believes of a run request's delivery: that nobody else has it, or had it.

User code of a first attempt starts before its claim is answered if nobody can have run it yet. What says so is the
server's count of deliveries. But of the run queue the server syncs nothing one by one (what it holds is a function of
the log): killed, it may forget what it had delivered. So behind a reconnect the count is believed only for what was
stored after it.

And when a server comes back, so do the workers that had taken requests from it and have not told the journal yet. They
are given a second to do so before anybody else claims what they run (m: else one of a hundred workflows ran twice for
half a second, until the engine was back to tell one of the two).

Store times are the server's clock, which a worker knows from the answers to its claims, and better from what it is
delivered: all of that was stored a while ago, so it is behind and never ahead, and the least late of it counts.
"""

import time
from collections.abc import Callable
from typing import Final

HOLD_SECONDS: Final = 1.0
MARGIN_US: Final = 1_000_000  # by which the least late answer is late at most; and what a start costs meanwhile is 1 ms


class Deliveries:
    """To one worker. Times in microseconds; `now_us` is a steady clock."""

    def __init__(self, now_us: Callable[[], int] = lambda: time.monotonic_ns() // 1_000) -> None:
        self._now_us = now_us
        self._ahead_us: int | None = None  # the server's clock, of ours
        self._reconnected_us: int | None = None  # by our clock

    def reconnected(self) -> None:
        self._reconnected_us = self._now_us()

    def answered(self, journal_us: int) -> None:
        """A claim was answered that was stored at this time, a moment ago."""
        ahead = journal_us - self._now_us()
        self._ahead_us = ahead if self._ahead_us is None else max(self._ahead_us, ahead)

    def delivered(self, stored_us: int) -> None:
        """A request was, of that time. It may have waited for long, so alone it says nothing."""
        if self._ahead_us is not None:
            self.answered(stored_us)

    def is_first(self, delivered: int, stored_us: int) -> bool:
        """Of a message stored at `stored_us`, which the server says to have delivered so many times."""
        return delivered == 1 and self._is_newer(stored_us, by=MARGIN_US)

    def is_anothers(self, delivered: int, stored_us: int) -> bool:
        """Whether it may be in the hands of somebody who has just come back, as we have."""
        since = self._reconnected_us
        if since is None or self._now_us() - since > HOLD_SECONDS * 1e6:
            return False
        return delivered > 1 or not self._is_newer(stored_us, by=0)

    def _is_newer(self, stored_us: int, *, by: int) -> bool:
        """Than the last reconnect, if there was any."""
        if self._reconnected_us is None:
            return True
        return self._ahead_us is not None and stored_us > self._reconnected_us + self._ahead_us + by
