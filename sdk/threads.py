"""Threads for `def` code, and the portal through which such code calls operations on the event loop.

A thread that calls an operation serves its portal while it waits: a `def` step's function is sent back to the very
thread that called it (what it keeps per thread, such as a database connection, stays its own), everything else runs
on the loop. Threads are daemons and are kept for the next user; a thread cannot be cancelled, it leaves user code
when its next operation raises `Stopped`.

Invariant: an exception crosses between thread and loop as a value (`Result`), never through a future: StopIteration
and BaseExceptions would not survive that.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from runtara.protocol.errors import Stopped

from .interrupts import Interruptible

R = TypeVar("R")
_IDLE_SECONDS: Final = 30.0  # a thread without work for so long ends


class Result(Generic[R]):
    """A value, or what was raised instead."""

    __slots__ = ("error", "value")

    def __init__(self, value: R | None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    @classmethod
    def of(cls, fn: Callable[[], R]) -> "Result[R]":
        try:
            return cls(fn())
        except BaseException as exc:  # whoever asked decides what it means
            return cls(None, exc)

    def get(self) -> R:
        if self.error is not None:
            try:
                raise self.error
            finally:
                del self  # break the cycle between error, traceback and result
        return self.value  # type: ignore[return-value]  # a value of type R if there was no error


class _Job:
    """A function for a thread that waits in an operation, and the future that learns of its end."""

    __slots__ = ("_finished", "_fn", "_loop")

    def __init__(
        self, fn: Callable[[], Any], loop: asyncio.AbstractEventLoop, finished: "asyncio.Future[Result[Any]]"
    ) -> None:
        self._fn = fn
        self._loop = loop
        self._finished = finished

    def run(self) -> None:
        _tell(self._loop, self._finished, Result.of(self._fn))


class Call(Interruptible, Generic[R]):
    """A function for a thread of its own, for as long as it runs. `finished` learns of its end."""

    __slots__ = ("_fn", "_loop", "finished")

    def __init__(self, fn: Callable[[], R], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._fn = fn
        self._loop = loop
        self.finished: asyncio.Future[Result[R]] = loop.create_future()

    def run(self) -> None:
        """In the thread. Whatever is thrown into it, this ends as it should, and nothing is thrown after it."""
        result: Result[R] | None = None
        try:
            self.open()
            result = Result.of(self._fn)
            self.close()
        except BaseException as exc:  # thrown in beside the code; it was the only one, so what follows is undisturbed
            self.close()
            result = result or Result(None, exc)
        _tell(self._loop, self.finished, result)


def _tell(loop: asyncio.AbstractEventLoop, finished: "asyncio.Future[Result[R]]", result: Result[R]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits any more
        loop.call_soon_threadsafe(_finish, finished, result)


def _finish(finished: "asyncio.Future[Result[R]]", result: Result[R]) -> None:
    if not finished.done():
        finished.set_result(result)


class Threads:
    """Daemon threads, made when none is idle."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call[Any]] = SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, fn: Callable[[], R], loop: asyncio.AbstractEventLoop) -> Call[R]:
        """Run `fn` in a thread, in a copy of the caller's context."""
        context = copy_context()
        call = Call(lambda: context.run(fn), loop)
        with self._lock:
            self._calls.put(call)
            if self._idle > 0:
                self._idle -= 1
                return call
        threading.Thread(target=self._work, name="runtara-code", daemon=True).start()
        return call

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:  # a call may have been promised to this thread just now
                    if self._idle == 0:
                        continue
                    self._idle -= 1
                return
            call.run()
            del call
            with self._lock:
                self._idle += 1


THREADS: Final = Threads()
"""The process's threads: each belongs to whoever uses it at the moment, so executions need none of their own."""


class _Inbox:
    """What the loop sends to a thread that waits: functions to run, at last the result. Then it is `closed`."""

    __slots__ = ("closed", "queue")

    def __init__(self) -> None:
        self.queue: SimpleQueue[_Job | Result[Any]] = SimpleQueue()
        self.closed = False

    def close(self, result: Result[Any]) -> None:
        self.closed = True
        self.queue.put(result)


CALLER: Final[ContextVar[_Inbox | None]] = ContextVar("runtara_caller", default=None)


class Portal:
    """Calls from the threads of one execution to its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.calling: dict[int, asyncio.Task[Any]] = {}  # the task of the operation in which a thread is blocked

    def call(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run `operation` on the loop, in the caller's context, and wait. Raises `Stopped` if it was cancelled."""
        inbox = _Inbox()
        context = copy_context()
        context.run(CALLER.set, inbox)
        try:
            self._loop.call_soon_threadsafe(self._begin, operation, inbox, threading.get_ident(), context=context)
        except RuntimeError as exc:
            raise Stopped("the event loop has ended") from exc
        while isinstance(item := inbox.queue.get(), _Job):
            item.run()
        return item.get()  # type: ignore[no-any-return]  # the result of `operation`

    def _begin(self, operation: Callable[[], Coroutine[Any, Any, Any]], inbox: _Inbox, thread: int) -> None:
        task = self.calling[thread] = self._loop.create_task(operation())
        task.add_done_callback(lambda task: self._end(task, inbox, thread))

    def _end(self, task: asyncio.Task[Any], inbox: _Inbox, thread: int) -> None:
        if self.calling.get(thread) is task:
            del self.calling[thread]
        inbox.close(_result_of(task))

    def run_in_caller(self, fn: Callable[[], R]) -> "asyncio.Future[Result[R]] | None":
        """Run `fn` in the thread that called the current operation; None if no thread did."""
        inbox = CALLER.get()
        if inbox is None or inbox.closed:
            return None
        finished: asyncio.Future[Result[R]] = self._loop.create_future()
        context = copy_context()
        inbox.queue.put(_Job(lambda: context.run(fn), self._loop, finished))
        return finished


def _result_of(task: asyncio.Task[Any]) -> Result[Any]:
    if task.cancelled():
        return Result(None, Stopped("the instance must leave its process"))
    error = task.exception()
    return Result(None, error) if error is not None else Result(task.result())
