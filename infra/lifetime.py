"""The life cycle that every loop and every process of ours has.

A `Service` is an async context manager that owns named tasks and, nested in it, other services. Entering it runs
`open` (connect, enter what it stands on, spawn loops); leaving it runs `drain` (stop intake, finish or release,
flush), then ends its tasks, then leaves what it entered, in reverse order. `run_until_stopped` runs one as a process.

Invariants:
- A side task that dies, or returns although it should run for ever, ends the service: whoever waits on `failed()`
  gets the task's error with the task's name noted on it, and the process stops loudly. Nothing limps on: a failed
  service is not drained, it ends as if it had crashed.
- Closing is complete: when `async with` has ended, no task of the service runs any more.
- `asyncio.TaskGroup` is not used for this, because it must be left by the task that entered it, and it cancels
  that task's body: a service has to flush before it goes.
"""

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Never, Self, TypeVar

from .logs import logger

T = TypeVar("T")
GC_THRESHOLDS: Final = (20_000, 20, 20)  # new objects before a collection; of which every 20th goes deeper
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log = logger("lifetime")


class TaskEnded(RuntimeError):
    """A task that should run as long as its service returned."""


class Service:
    """Something that runs until it is closed. Subclasses override `open` and `drain` and call `spawn` and `enter`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: dict[asyncio.Task[Any], bool] = {}  # and whether it may end
        self._stack = AsyncExitStack()
        self._failure: asyncio.Future[BaseException] | None = None
        self._closing = False

    async def open(self) -> None:
        """Start. Called by `async with`; what it raises undoes what it had done."""

    async def drain(self) -> None:
        """Stop intake, finish or release, flush. The tasks and everything entered still run."""

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str, *, may_end: bool = False) -> asyncio.Task[T]:
        """Run a side task. If it raises, or returns without `may_end`, the service has failed."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.name}/{name}")
        self._tasks[task] = may_end
        task.add_done_callback(self._ended)
        return task

    async def enter(self, inner: AbstractAsyncContextManager[T]) -> T:
        """Enter something this service stands on; it is left after the tasks have ended. Its failure is ours."""
        entered = await self._stack.enter_async_context(inner)
        if isinstance(inner, Service):
            self._watch(inner)
        return entered

    def on_close(self, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await `callback` when this service ends, however it ends, after its tasks have ended."""
        self._stack.push_async_callback(callback)

    async def failed(self) -> Never:
        """Wait for the first failure and raise it. Cancel this wait freely."""
        raise await asyncio.shield(self._failure_future())

    def fail(self, error: BaseException) -> None:
        """Declare this service dead, from a callback that cannot raise. Only the first error counts."""
        if not self._closing and self._declare(error):
            _log.critical("service_failed", service=self.name, error=repr(error), exc_info=error)

    async def __aenter__(self) -> Self:
        self._failure_future()
        try:
            await self.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if not self._failure_future().done():
                await self.drain()
        finally:
            await self._close()

    async def _close(self) -> None:
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._stack.aclose()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        may_end = self._tasks.pop(task)
        if task.cancelled() or self._closing:
            _ = task.cancelled() or task.exception()  # retrieved: asyncio would complain later
            return
        error = task.exception()
        if error is None and not may_end:
            error = TaskEnded(f"{task.get_name()} returned, though it should run as long as {self.name}")
        if error is not None:
            error.add_note(f"in task {task.get_name()}")
            self.fail(error)

    def _failure_future(self) -> asyncio.Future[BaseException]:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return self._failure

    def _declare(self, error: BaseException) -> bool:
        future = self._failure_future()
        if future.done():
            return False
        future.set_result(error)
        return True

    def _watch(self, inner: "Service") -> None:
        inner._failure_future().add_done_callback(self._inner_failed)

    def _inner_failed(self, future: asyncio.Future[BaseException]) -> None:
        if not future.cancelled() and not self._closing:
            self._declare(future.result())  # the inner service has logged it


async def run_until_stopped(
    service: Service,
    *,
    ready: Callable[[], None] | None = None,
    until: Callable[[], Coroutine[Any, Any, object]] | None = None,
) -> None:
    """Run `service` until SIGTERM or SIGINT, or until it fails, in which case its error is raised.

    `ready` is called once it is open; `until`, if given, is awaited instead of a failure: it is all that the service is
    there for. A second SIGINT ends the process at once, without draining.
    """
    with stop_signals() as stop:
        opened = AsyncExitStack()
        if not await _until(stop, opened.enter_async_context(service)):
            return
        async with opened:
            if until is None:
                _calm_collector()
            if ready is not None:
                ready()
            await _until(stop, until() if until is not None else service.failed())
            if until is None:
                _log.info("stopping", service=service.name)


def _calm_collector() -> None:
    """What is here to stay need not be looked at again and again, and what comes by the thousand dies by itself.

    (m) Python's defaults cost a busy worker or engine about a tenth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _until(stop: asyncio.Event, coroutine: Coroutine[Any, Any, object]) -> bool:
    """Await `coroutine` in this very task, or cancel it when `stop` is set; True if it finished."""
    scope = asyncio.timeout(None)
    waiting = asyncio.create_task(_expire(scope, when=stop))
    try:
        async with scope:
            await coroutine
    except TimeoutError:
        if scope.expired():
            return False
        raise
    finally:
        waiting.cancel()
    return True


async def _expire(scope: asyncio.Timeout, *, when: asyncio.Event) -> None:
    await when.wait()
    scope.reschedule(asyncio.get_running_loop().time())


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the next SIGINT is deadly again.

    Outside the main thread, where signals cannot be handled, nothing ever sets it.
    """
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        _log.info("signal_received", signal=number.name)
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.getsignal(signal.SIGINT)
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, before)
