"""Every task and thread that an instance started, so that all of them can be ended.

A task factory looks at the frame of each new task's context and hands the task to its execution. Cancelling goes
from the outside in: first the workflow's own task, so that `gather` and `TaskGroup` cancel their children in
their own way (a task that is cancelled twice would lose the `finally` it is in), then whatever is left.

Invariant: `unwind` returns when no task and no thread of the instance runs any more.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Generator
from typing import Any, Final, TypeVar

from runtara.protocol.limits import CANCEL_GRACE_SECONDS

from .scope import FRAME

T = TypeVar("T")
logger: Final = logging.getLogger("runtara.sdk")
_ROUNDS_INWARD: Final = 4  # turns of the loop in which cancelled tasks may cancel those they wait for


class Residents:
    """The tasks and threads of one execution."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._tasks: set[asyncio.Future[Any]] = set()
        self._threads: set[asyncio.Future[Any]] = set()

    @property
    def tasks(self) -> Collection[asyncio.Future[Any]]:
        return self._tasks

    @property
    def threads(self) -> int:
        """How many threads have not left user code."""
        return len(self._threads)

    def adopt(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def adopt_thread(self, finished: asyncio.Future[Any]) -> None:
        """`finished` is resolved when the thread has left user code."""
        self._threads.add(finished)
        finished.add_done_callback(self._threads.discard)

    async def unwind(self, main: asyncio.Task[None] | None) -> None:
        """Cancel everything, `main` first, and wait until all of it has ended."""
        started = list(self._tasks)  # what clean-up starts from now on is left alone
        if main is not None and not main.done():
            main.cancel()
            for _ in range(_ROUNDS_INWARD):
                await asyncio.sleep(0)
        _cancel(started)
        while pending := self._tasks | self._threads:
            _, late = await asyncio.wait(pending, timeout=CANCEL_GRACE_SECONDS)
            if late:
                logger.warning("instance_does_not_end instance=%s tasks_and_threads=%d", self._instance, len(late))
            _cancel(list(self._tasks), again=bool(late))

    def cancel(self) -> None:
        """Cancel everything, and wait for nothing."""
        _cancel(list(self._tasks))


def _cancel(tasks: list[asyncio.Future[Any]], *, again: bool = False) -> None:
    for task in tasks:
        if isinstance(task, asyncio.Task) and not task.done() and (again or not task.cancelling()):
            task.cancel()
            task.add_done_callback(_forget)


def _forget(task: asyncio.Future[Any]) -> None:
    """What a task raised while it unwound is nobody's business any more."""
    if not task.cancelled():
        task.exception()


def track_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Give `loop` the factory that hands tasks to their executions; one that is there already stays in use."""
    factory = loop.get_task_factory()
    if not isinstance(factory, _TrackingFactory):
        loop.set_task_factory(_TrackingFactory(factory))


class _TrackingFactory:
    def __init__(self, inner: Any) -> None:
        self._inner = inner or _make_task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], /, **options: Any
    ) -> asyncio.Future[T]:
        context = options.get("context")
        frame = FRAME.get(None) if context is None else context.get(FRAME)
        task: asyncio.Future[T] = self._inner(loop, coro, **options)
        if frame is not None:
            frame.host.adopt(task)
        return task


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Future[Any]:
    return asyncio.Task(coro, loop=loop, **options)
