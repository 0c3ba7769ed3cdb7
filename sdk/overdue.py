"""What goes on in a process although it was told to end. When that is too much, the process is to be replaced.

Code cannot be ended from outside but with its process. An instance whose code is still there after the grace (it was
cancelled, and `Stopped` was thrown into its threads) is too much by itself: it may compute for ever, next to others.
Threads that a step's time-out left behind, mostly blocked in a library, may come back and are borne up to a number.

Invariants: code that nobody told to end is never counted, however long it takes; it is said once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from runtara.protocol.limits import CANCEL_GRACE_SECONDS

logger: Final = logging.getLogger("runtara.sdk")
MAX_OVERDUE_THREADS: Final = 8  # of timed-out steps, past their grace; each may hold a connection, and memory
EXIT_OVERDUE: Final = 75  # of a process that leaves because of them: start another (EX_TEMPFAIL in sysexits.h)


class Overdue:
    """Of one process. Construct it outside of user code; all but the construction belongs to the loop's thread.

    `on_too_much` is called once, with what it is, for people.
    """

    def __init__(self, on_too_much: Callable[[str], None] = lambda what: None) -> None:
        self._on_too_much = on_too_much
        self._threads: set[asyncio.Future[Any]] = set()
        self._outside = copy_context()
        self._said = False

    def instance(self, instance: str) -> None:
        """Code of `instance` is still there after the grace."""
        self._say(f"code of instance {instance} does not end")

    def thread(self, finished: "asyncio.Future[Any]") -> None:
        """A step's time was up, its thread was told to end; `finished` is resolved when it has."""
        loop = finished.get_loop()
        loop.call_later(CANCEL_GRACE_SECONDS, self._count, finished, context=self._outside.copy())

    def _count(self, finished: "asyncio.Future[Any]") -> None:
        if finished.done():
            return
        self._threads.add(finished)
        finished.add_done_callback(self._threads.discard)
        logger.warning("thread_does_not_end threads=%d", len(self._threads))
        if len(self._threads) > MAX_OVERDUE_THREADS:
            self._say(f"{len(self._threads)} threads go on after their steps' time was up")

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            self._on_too_much(what)
