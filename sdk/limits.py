"""A time limit that is in the log: it holds for what may sleep for months, and for all attempts together.

`asyncio.timeout` begins anew at each attempt and keeps the instance in memory, as it is a timer of the event loop. Here
the limit is a durable sleep beside the body, so its deadline is absolute and an instance that only waits can leave.

Invariants: whether the limit or the body came first is in the log: a limit whose sleep was given up did not hit, in
every later attempt either; one that has hit does so again before the body begins.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from runtara.protocol.errors import StepTimeout

from .context import Context

T = TypeVar("T")


async def within(ctx: Context, key: str, limit: timedelta, body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await `body()`, which is cancelled `limit` after this was first called under `key`.

    Raises:
        StepTimeout: the limit came first; the same after a resume.
        DuplicateKey: `key` was used in this run.
    """
    if ctx._waits.was_given_up(key):
        return await body()
    timer = asyncio.create_task(ctx.sleep(key, limit))
    running: list[asyncio.Task[Any]] = [timer]
    try:
        await asyncio.sleep(0)  # a limit that has hit is known by now
        if not timer.done():
            work = asyncio.create_task(body())
            running.append(work)
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if timer.done():
            timer.result()
            raise StepTimeout(key=key, seconds=limit.total_seconds())
        return work.result()
    finally:
        await _ended(running)


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
