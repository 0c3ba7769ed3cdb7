"""Every task and thread that an instance started, so that all of them can be ended.

A task factory looks at the frame of each new task's context and hands the task to its execution. Cancelling goes
from the outside in: first the workflow's own task, so that `gather` and `TaskGroup` cancel their children in
their own way (a task that is cancelled twice would lose the `finally` it is in), then whatever is left. A thread has a
moment to leave by itself, at its next call of the context; then `Stopped` is thrown into it (`interrupts`). What is
still there after the grace is cancelled again, and told (`overdue`).

Invariant: `unwind` returns when no task and no thread of the instance runs any more.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from runtara.protocol.limits import CANCEL_GRACE_SECONDS

from .overdue import Overdue
from .scope import FRAME
from .threads import THREADS, Call, Portal, Result

T = TypeVar("T")
logger: Final = logging.getLogger("runtara.sdk")
_ROUNDS_INWARD: Final = 4  # turns of the loop in which cancelled tasks may cancel those they wait for
NEXT_CALL_SECONDS: Final = 2.0  # for a thread to come to its next call of the context, which is the better way out


class Residents:
    """The tasks and threads of one execution.

    `in_thread` are the tasks that are blocked until a thread of theirs has ended. `on_end` is told of each end.
    """

    def __init__(
        self, instance: str, portal: Portal, *, overdue: Overdue, on_end: Callable[[], None] | None = None
    ) -> None:
        self._instance = instance
        self._portal = portal
        self._overdue = overdue
        self._on_end = on_end
        self._threads: dict[asyncio.Future[Any], Call[Any]] = {}
        self.is_overdue = False
        self.tasks: set[asyncio.Future[Any]] = set()
        self.in_thread: set[asyncio.Future[Any]] = set()

    def adopt(self, task: asyncio.Future[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    async def in_a_thread(self, fn: Callable[[], T], *, timed: bool = False) -> Result[T]:
        """Run `fn` in a thread of the instance's, and wait for its end. `timed`: who no longer waits ends it."""
        call, task = THREADS.submit(fn, asyncio.get_running_loop()), asyncio.current_task()
        finished = call.finished
        self._threads[finished] = call
        finished.add_done_callback(self._thread_ended)
        if task is not None:
            self.in_thread.add(task)
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            if timed and call.interrupt():
                self._overdue.thread(finished)
            raise
        finally:
            if task is not None:
                self.in_thread.discard(task)

    def threads_wait(self) -> bool:
        """Whether each thread is blocked in an operation, whose task is among ours."""
        calling = self._portal.calling
        return all(calling.get(call.ident) in self.tasks for call in self._threads.values())

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self.tasks.discard(task)
        if self._on_end is not None:
            self._on_end()

    def _thread_ended(self, finished: asyncio.Future[Any]) -> None:
        del self._threads[finished]
        if self._on_end is not None:
            self._on_end()

    async def unwind(self, main: asyncio.Task[None] | None, *, once: bool = False) -> None:
        """Cancel everything, `main` first, and wait until all of it has ended; `once`: or has had its grace."""
        started = list(self.tasks)  # what clean-up starts from now on is left alone
        if main is not None and not main.done():
            main.cancel()
            for _ in range(_ROUNDS_INWARD):
                await asyncio.sleep(0)
        _cancel(started)
        if await self._end_within(NEXT_CALL_SECONDS):
            return
        for call in list(self._threads.values()):
            call.interrupt()
        seconds = CANCEL_GRACE_SECONDS - NEXT_CALL_SECONDS
        while not await self._end_within(seconds):
            late, seconds = len(self.tasks) + len(self._threads), float(CANCEL_GRACE_SECONDS)
            logger.warning("instance_does_not_end instance=%s tasks_and_threads=%d", self._instance, late)
            _cancel(list(self.tasks), again=True)
            if once:
                return
            self.is_overdue = True
            self._overdue.instance(self._instance)

    async def _end_within(self, seconds: float) -> bool:
        """Whether all of it has ended by then, with what it has started meanwhile, in `finally` blocks say."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while pending := self.tasks | self._threads.keys():
            _, late = await asyncio.wait(pending, timeout=max(0.0, deadline - loop.time()))
            if late:
                return False
            _cancel(list(self.tasks))
        return True

    def cancel(self) -> None:
        """Cancel everything, and wait for nothing."""
        _cancel(list(self.tasks))


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
