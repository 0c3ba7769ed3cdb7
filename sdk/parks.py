"""The waits of one attempt that have no outcome yet: who waits, for which key, and who is told when it comes.

A step that waits for its next try is one of them: it has no outcome, and is over by the clock.

Invariants: a wait has one outcome, the engine's; only a sleep, whose outcome is no choice, may also end by this
process's monotonic clock. A key may have several waits (a child's result that two tasks ask for) or none (nobody asks
yet): its outcome goes to all of them, and stays with the memos. While code is blocked here it counts as waiting for the
gate, so a pause acts at once.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import copy_context

from runtara.protocol.messages import Memo

from .gate import Gate
from .memos import SLEPT, Memos, Waited
from .ports import Clock, Timer

Waiting = asyncio.Future[Waited]


class Parks:
    """Construct it outside of user code: its timers must not count as the instance's own.

    Args:
        on_parked: code has begun to wait.
        on_woken: something that was waited for has happened.
    """

    def __init__(
        self, gate: Gate, memos: Memos, clock: Clock, *, on_parked: Callable[[], None], on_woken: Callable[[], None]
    ) -> None:
        self._gate = gate
        self._memos = memos
        self.clock = clock
        self._on_parked = on_parked
        self._on_woken = on_woken
        self._loop = asyncio.get_running_loop()
        self._outside = copy_context()
        self._by_key: dict[str, list[Waiting]] = {}
        self._due: dict[str, float] = {}
        self.waiting: dict[asyncio.Future[Waited], str] = {}
        self.since = 0.0  # when the oldest wait, or the last question about it, was

    async def outcome(self, key: str, *, due: float | None = None) -> Waited:
        """Wait for the outcome of `key`; `due` is when a sleep ends by `clock.monotonic`."""
        return await self._wait(key, due, self._slept)

    async def rest(self, key: str, due: float) -> None:
        """Wait until the next try of step `key` is due by `clock.monotonic`."""
        await self._wait(key, due, self._rested)

    async def _wait(self, key: str, due: float | None, on_due: Callable[[str], None]) -> Waited:
        waiting: Waiting = self._loop.create_future()
        timer = None if due is None else self._set_timer(key, due, on_due)
        self._enter(key, waiting)
        try:
            outcome = await waiting
        finally:
            self._leave(key, waiting)
            if timer is not None:
                timer.cancel()
                self._due.pop(key, None)
        if self._gate.shut:
            await self._gate.passing()
        return outcome

    def resolve(self, memo: Memo) -> None:
        """The engine has told the outcome of a wait."""
        self._memos.add(memo)
        self._wake(memo.key)

    def is_overdue(self, seconds: float) -> bool:
        """Whether code has waited for so long, since it began to or since this was last said."""
        now = self._loop.time()
        overdue = bool(self.waiting) and now - self.since > seconds
        if overdue:
            self.since = now
        return overdue

    @property
    def is_in_step(self) -> bool:
        """Whether a step is in flight; one that waits itself would be cut in half."""
        return self._gate.in_flight > 0

    def seconds_until_due(self, keys: Iterable[str]) -> float | None:
        """Until the first of these ends by the clock, as far as that is known."""
        now = self.clock.monotonic()
        return min((self._due[key] - now for key in keys if key in self._due), default=None)

    def _set_timer(self, key: str, due: float, on_due: Callable[[str], None]) -> Timer:
        self._due[key] = due
        return self.clock.call_later(due - self.clock.monotonic(), on_due, key, context=self._outside)

    def _slept(self, key: str) -> None:
        self._memos.settle(key, SLEPT)
        self._wake(key)

    def _rested(self, key: str) -> None:
        self._tell(key, SLEPT)

    def _wake(self, key: str) -> None:
        outcome = self._memos.answer(key)
        if isinstance(outcome, Waited):
            self._tell(key, outcome)

    def _tell(self, key: str, outcome: Waited) -> None:
        for waiting in self._by_key.get(key, ()):
            if not waiting.done():
                waiting.set_result(outcome)
                self._on_woken()

    def _enter(self, key: str, waiting: Waiting) -> None:
        if not self.waiting:
            self.since = self._loop.time()
        self.waiting[waiting] = key
        self._by_key.setdefault(key, []).append(waiting)
        self._gate.began_waiting()
        self._on_parked()

    def _leave(self, key: str, waiting: Waiting) -> None:
        self._gate.ended_waiting()
        del self.waiting[waiting]
        others = self._by_key[key]
        others.remove(waiting)
        if not others:
            del self._by_key[key]
