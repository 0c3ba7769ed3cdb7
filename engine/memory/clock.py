"""A clock that stands still until it is moved, and then is there at once: three days take no time.

It is the journal's clock and that of whoever waits by it, so both always agree.

Invariants: it never runs back; what waits is called in the order of its time, and of asking where that is the same;
while it is called the clock shows the time it waited for.
"""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from itertools import count


class VirtualTimer:
    """Something that waits for a time. `cancel` is all that can be done with it."""

    __slots__ = ("_args", "_callback", "_context", "due_us", "is_cancelled")

    def __init__(
        self, due_us: int, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> None:
        self.due_us = due_us
        self.is_cancelled = False
        self._callback = callback
        self._args = args
        self._context = context

    def cancel(self) -> None:
        self.is_cancelled = True

    def call(self) -> None:
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


class VirtualClock:
    """Starts at `now_us`. `sleepers` are the futures of those who sleep by it; `changes` counts what happened to it."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._waiting: list[tuple[int, int, VirtualTimer]] = []
        self._serial = count()
        self.sleepers: set[asyncio.Future[None]] = set()
        self.changes = 0

    @property
    def is_known(self) -> bool:
        return True

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1e6

    def utc_us(self) -> int:
        return self._now_us

    def seen(self, journal_us: int) -> None:
        """It is the journal's clock: there is nothing to learn."""

    def seconds_until(self, due_us: int) -> float:
        return (due_us - self._now_us) / 1e6

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> VirtualTimer:
        timer = VirtualTimer(self._now_us + max(round(seconds * 1e6), 0), callback, args, context)
        heapq.heappush(self._waiting, (timer.due_us, next(self._serial), timer))
        self.changes += 1
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, _wake, woken)
        self.sleepers.add(woken)
        try:
            await woken
        finally:
            timer.cancel()
            self.sleepers.discard(woken)

    def next_due(self) -> int | None:
        """When the first of those who wait is due."""
        while self._waiting and self._waiting[0][2].is_cancelled:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def move_to(self, time_us: int) -> None:
        """Let time pass until then, and call everyone who is due."""
        while (due := self.next_due()) is not None and due <= time_us:
            _, _, timer = heapq.heappop(self._waiting)
            self._now_us = max(self._now_us, due)
            timer.call()
        self._now_us = max(self._now_us, time_us)
        self.changes += 1


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
