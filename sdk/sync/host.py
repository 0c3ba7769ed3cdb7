"""The event loop behind the blocking faces of programs that have none: one daemon thread for the whole process.

Invariant: a coroutine is made and run on that loop; whoever waits for it and is interrupted cancels it. After a
fork the child has a loop of its own.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, TypeVar

R = TypeVar("R")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="runtara loop", daemon=True)
        self._thread.start()

    def call_blocking(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run `operation` on the loop and wait for it."""

        async def run() -> R:
            return await operation()

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def new_host() -> LoopThread:
    """The host of a blocking client or instance; all of a process share it."""
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(pid: int) -> LoopThread:
    return LoopThread()
