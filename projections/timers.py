"""Pending timers of the next minute, in memory; the rest are rows.

Invariants: a timer leaves only when the log says that it is gone (fired or dropped), never because it was published:
one that was published and not seen to fire is published again. A million sleepers cost rows, not memory.
"""

import heapq
from typing import Final

TimerId = tuple[str, str, int]  # tenant, instance, version of the event that made it

HORIZON_SECONDS: Final = 60
RELOAD_SECONDS: Final = 30  # rows that came within the horizon; well below it, so none is late
MAX_IN_MEMORY: Final = 100_000
REPEAT_SECONDS: Final = 5


class TimerHeap:
    """Times are microseconds of the journal's clock."""

    def __init__(self) -> None:
        self._due: dict[TimerId, int] = {}
        self._heap: list[tuple[int, TimerId]] = []

    def __len__(self) -> int:
        return len(self._due)

    def add(self, id: TimerId, due_us: int) -> None:
        if id in self._due or len(self._due) >= MAX_IN_MEMORY:
            return  # a full heap takes them from their rows at a later reload
        self._due[id] = due_us
        heapq.heappush(self._heap, (due_us, id))

    def drop(self, id: TimerId) -> None:
        self._due.pop(id, None)

    def clear(self) -> None:
        self._due.clear()
        self._heap.clear()

    def next_due(self) -> int | None:
        self._skip_gone()
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_us: int, limit: int) -> list[TimerId]:
        """Timers that are due, to be published; each comes again after some seconds unless it is dropped before."""
        due: list[TimerId] = []
        while len(due) < limit:
            self._skip_gone()
            if not self._heap or self._heap[0][0] > now_us:
                break
            _, id = heapq.heappop(self._heap)
            due.append(id)
            self._due[id] = now_us + REPEAT_SECONDS * 1_000_000
        for id in due:
            heapq.heappush(self._heap, (self._due[id], id))
        return due

    def _skip_gone(self) -> None:
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
