"""Whether an instance only waits, shown from the tasks and threads that it started.

An instance is idle if each of its tasks is blocked in a parked operation, or waits for such a task, and each of its
threads is blocked in an operation whose task is. Waits for tasks are followed through `await task`, `asyncio.gather`,
`asyncio.TaskGroup` and `asyncio.wait`; `asyncio.wait_for` and `asyncio.timeout` make a timer, and an instance whose
code has a timer pending is not idle, since that timer may go off. What cannot be shown idle is not: locks, semaphores,
queues, events, `as_completed`, `shield`, anybody else's future, a wait inside a step. It stays in memory, which costs
memory, never progress.

Threads that were started by other means than `ctx.run_in_thread` (and timers of other event loops) are not seen.
"""

import asyncio
from collections.abc import Callable, Container, Iterable, Set
from contextvars import copy_context
from typing import Any, Final

from runtara.infra.clock import JournalClock
from runtara.protocol.records import Options

from .parks import Parks
from .ports import Clock, Timer
from .scope import FRAME, Host
from .tasks import Residents

LINGER_SECONDS: Final = 2.0
LOOK_AFTER_SECONDS: Final = 0.01  # so that a burst of waits is looked at once
STAY_FACTOR: Final = 2  # a sleep that ends within so many times `linger` is cheaper in memory than out of it and back
_WAIT: Final = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]  # what `asyncio.wait` is blocked in
_GROUP_EXIT: Final = frozenset(
    fn.__code__ for name in ("__aexit__", "_aexit") if (fn := getattr(asyncio.TaskGroup, name, None)) is not None
)
Leave = Callable[[tuple[str, ...]], None]


class Idleness:
    """Whether one execution is idle, and for how long. All of a process share the `watch` that looks.

    Args:
        linger: seconds to stay in memory once idle.
        leave: called when that has passed, with the keys that everything is blocked on.
        on_change: told when the instance becomes idle, and when it no longer is.
    """

    def __init__(
        self, host: Host, residents: Residents, parks: Parks, watch: "IdleWatch", *, linger: float,
        leave: Leave, on_change: Callable[[bool], None] | None,
    ) -> None:  # fmt: skip
        self.host = host
        self.is_idle = False
        self._residents = residents
        self._parks = parks
        self._watch = watch
        self._linger = linger
        self._leave = leave
        self._on_change = on_change
        self._timer: Timer | None = None

    def look_soon(self) -> None:
        """Something has happened after which it may be idle."""
        if not self.is_idle:
            self._watch.add(self)

    def woken(self) -> None:
        """Something has happened after which it is not idle."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.is_idle:
            self._set(False)

    def keys(self) -> tuple[str, ...]:
        """What everything is blocked on, as far as that can be shown now; else nothing."""
        return self._keys(hosts_with_timers(self._watch.loop))

    def leave_now(self) -> None:
        """Give the memory back, if it is idle."""
        keys = self._keys_while_idle() if self.is_idle else self.keys()
        if keys:
            self._leave(keys)

    def look(self, hosts: Set[Host] | None) -> None:
        if not self.is_idle and self._keys(hosts):
            self._set(True)
            self._timer = self._watch.later(self._linger, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        keys = self._keys_while_idle()
        seconds = self._parks.seconds_until_due(keys)
        if not keys:
            self._set(False)
        elif seconds is None or seconds > STAY_FACTOR * self._linger:
            self._leave(keys)

    def _set(self, value: bool) -> None:
        self.is_idle = value
        if self._on_change is not None:
            self._on_change(value)

    def _keys_while_idle(self) -> tuple[str, ...]:
        """Its code has not run since it was found idle, so it has no timers now either."""
        return self._keys(frozenset())

    def _keys(self, hosts: Set[Host] | None) -> tuple[str, ...]:
        if hosts is None or self.host in hosts:
            return ()
        return blocked_on(self._residents, self._parks)


class IdleWatch:
    """Looks at all executions of a process that may have become idle, a few milliseconds after they said so.

    Construct it outside of user code. `clock` is what it waits by; the machine's unless given.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock | None = None) -> None:
        self.loop = loop
        self._clock = clock or JournalClock()
        self._outside = copy_context()
        self._candidates: set[Idleness] = set()

    def add(self, candidate: Idleness) -> None:
        if not self._candidates:
            self.later(LOOK_AFTER_SECONDS, self._look)
        self._candidates.add(candidate)

    def later(self, seconds: float, fn: Callable[[], None]) -> Timer:
        return self._clock.call_later(seconds, fn, context=self._outside)

    def _look(self) -> None:
        candidates, self._candidates = self._candidates, set()
        hosts = hosts_with_timers(self.loop)
        for candidate in candidates:
            candidate.look(hosts)


def hosts_with_timers(loop: asyncio.AbstractEventLoop) -> set[Host] | None:
    """The executions whose code has a timer pending; None if this loop does not show its timers."""
    scheduled: Iterable[Any] | None = getattr(loop, "_scheduled", None)
    ready: Iterable[Any] | None = getattr(loop, "_ready", None)  # those that have gone off and not run yet, too
    if scheduled is None or ready is None:
        return None
    timers = (*scheduled, *(handle for handle in ready if isinstance(handle, asyncio.TimerHandle)))
    frames = (handle._context.get(FRAME) for handle in timers if not handle._cancelled)
    return {frame.host for frame in frames if frame is not None}


def blocked_on(residents: Residents, parks: Parks) -> tuple[str, ...]:
    """The keys that all tasks and threads are blocked on; nothing if that cannot be shown."""
    if not parks.waiting or parks.is_in_step or not residents.threads_wait():
        return ()
    tasks = residents.tasks
    keys: dict[str, None] = {}
    for task in tasks:
        if task.done():
            continue
        waiter: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
        if waiter is None or waiter.done():
            return ()
        key = parks.waiting.get(waiter)
        if key is not None:
            keys[key] = None
        elif (
            waiter not in tasks
            and task not in residents.in_thread
            and not _waits_for(task, waiter, tasks, parks.waiting)
        ):
            return ()
    return tuple(keys)


def all_wait(residents: Residents, known: Container[asyncio.Future[Any]]) -> bool:
    """Whether every task is blocked on what is `known`, or waits for such a task."""
    tasks = residents.tasks
    for task in tasks:
        waiter: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
        if waiter is None or waiter.done():
            return False
        is_seen = waiter in known or waiter in tasks or task in residents.in_thread
        if not is_seen and not _waits_for(task, waiter, tasks, known):
            return False
    return residents.threads_wait()


def _waits_for(
    task: asyncio.Future[Any],
    waiter: asyncio.Future[Any],
    tasks: Set[asyncio.Future[Any]],
    known: Container[asyncio.Future[Any]],
) -> bool:
    """Whether `waiter`, on which `task` is blocked, is decided by our tasks and what is `known` alone."""
    parts = _parts(task, waiter)
    return parts is not None and all(
        part.done() or part in tasks or part in known or _waits_for(task, part, tasks, known) for part in parts
    )


def _parts(task: asyncio.Future[Any], waiter: asyncio.Future[Any]) -> Iterable[asyncio.Future[Any]] | None:
    """What `waiter` waits for, if it is known what made it."""
    children: list[asyncio.Future[Any]] | None = getattr(waiter, "_children", None)  # gather
    if children is not None:
        return children
    if not isinstance(task, asyncio.Task) or getattr(task, "_fut_waiter", None) is not waiter:
        return None
    frame = _innermost_frame(task)
    if frame is None:
        return None
    if frame.f_code is _WAIT:
        waited: Iterable[asyncio.Future[Any]] = frame.f_locals["fs"]
        return waited
    if frame.f_code in _GROUP_EXIT:
        members: Iterable[asyncio.Future[Any]] = frame.f_locals["self"]._tasks
        return members
    return None


def _innermost_frame(task: asyncio.Task[Any]) -> Any:
    coroutine: Any = task.get_coro()
    while asyncio.iscoroutine(inner := getattr(coroutine, "cr_await", None)):
        coroutine = inner
    return getattr(coroutine, "cr_frame", None)


def linger_seconds(options: Options, defaults: Options) -> float:
    """How long an instance that only waits stays in memory."""
    micros = options.linger_us if options.linger_us is not None else defaults.linger_us
    return LINGER_SECONDS if micros is None else micros / 1e6
