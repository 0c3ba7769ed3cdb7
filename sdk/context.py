"""What a workflow is handed: its durable operations, and what it may know about itself.

Invariants: everything that is awaited is recorded or waits for what is; everything that is not is derived or best
effort and never fails a run. The blocking face for `def` workflows is generated from this class.
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, NoReturn, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

import orjson

from runtara.protocol.errors import NoContext
from runtara.protocol.ids import check_key
from runtara.protocol.limits import MAX_RECORD_VALUE_BYTES

from .children import Children, OnEnd, Request
from .compensations import Compensations
from .operations import Operations, Saved
from .ports import Durability, Why
from .reports import Reports
from .scope import FRAME
from .starts import Startable
from .step import spec_of
from .values import encode
from .waits import Waits, key_and

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Level = Literal["debug", "info", "warning", "error"]


class Attempt(Protocol):
    """The execution behind a context."""

    tenant: str
    instance: str
    attempt: int
    labels: Mapping[str, str]
    floor: int  # the version at which the last `continue_as` ended what was before; 0 if there was none
    loop: asyncio.AbstractEventLoop

    @property
    def stopping(self) -> Why | None: ...
    async def run_in_thread(self, fn: Callable[[], R]) -> R: ...
    async def continue_as(self, input: dict[str, object]) -> NoReturn: ...


class Context:
    """One attempt of one instance, as its code sees it."""

    is_runtara_context: ClassVar[bool] = True  # among a step's arguments it does not count towards the key

    def __init__(
        self, attempt: Attempt, operations: Operations, waits: Waits, children: Children,
        compensations: Compensations, reports: Reports,
    ) -> None:  # fmt: skip
        self._attempt = attempt
        self._operations = operations
        self._waits = waits
        self._children = children
        self._compensations = compensations
        self._reports = reports

    # what is recorded

    @overload
    async def step(self, key: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def step(self, key: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def step(self, key: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` as a step under `key`: at least once, its result recorded once.

        Any function will do, of either colour (a `def` runs in a thread); a `@step` keeps its options. Returns what
        was recorded, which on a resumed run is the answer without a call.

        Raises:
            StepFailed: its tries are used up, the same now and after a resume.
            StepTimeout: the last try took too long.
            DuplicateKey: `key` was used in this run.
            StateNotRepresentable, StateTooLarge: the result cannot be recorded.
        """
        return await self._operations.step(spec_of(fn), key, args, kwargs)

    async def checkpoint(self, key: str, state: T, *, durability: Durability | None = None) -> Saved[T]:
        """Record `state` under `key`, or find what an earlier attempt recorded there: at most once, without exception.

        It guards what comes after it: by default it waits for the engine's commit (`durability="log"`).
        """
        return await self._operations.checkpoint(key, state, durability)

    async def now(self, key: str, *, durability: Durability | None = None) -> datetime:
        """The time (UTC) at which this was first asked under `key`."""
        return await self._operations.now(key, durability)

    async def emit(
        self, name: str, data: object = None, *, key: str | None = None, durability: Durability | None = None
    ) -> None:
        """Write an event of your own into the instance's history; a resumed run does not repeat it."""
        await self._operations.emit(name, data, key, durability)

    @overload
    async def compensate(self, fn: Callable[..., object], /, *args: Any, key: str | None, **kwargs: Any) -> None: ...
    @overload
    async def compensate(self, fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    async def compensate(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Register what undoes the step that comes next; call it *before* that step.

        If the workflow fails or is cancelled, all that was registered is called in reverse, each as a step under
        `~undo/<key>`: tried again as its `retry=` says, recorded once, not repeated after a crash. `key` is made of
        `fn` and its arguments unless given. The step may not have happened, or not wholly: `fn` must bear that, so
        give it what was known beforehand (an idempotency key, say). A compensation that fails does not keep the
        others from running, and is named in the instance's error.
        """
        await self._compensations.register(fn, kwargs.pop("key", None), args, kwargs)

    async def continue_as(self, **input: object) -> NoReturn:
        """End this run and begin the workflow anew with another input: same id, fresh keys. For endless loops."""
        await self._attempt.continue_as(input)

    async def run_in_thread(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run blocking code in a thread that keeps this context: `def` steps work in it. Itself it records nothing."""
        return await self._attempt.run_in_thread(lambda: fn(*args, **kwargs))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `<name>/` before the keys of all operations inside, for instance in the turns of a loop."""
        token = FRAME.set(FRAME.get().within(name))
        try:
            yield
        finally:
            FRAME.reset(token)

    # what waits

    @overload
    async def sleep(self, delay: timedelta, /) -> None: ...
    @overload
    async def sleep(self, key: str, delay: timedelta, /) -> None: ...
    async def sleep(self, key: Any, delay: Any = None, /) -> None:
        """Sleep for `delay`, which may be months: the deadline is in the log, counted once, whatever happens meanwhile.

        An instance that only waits leaves its process (see `linger` of `@workflow`) and is woken. Without a key one is
        made of the duration.
        """
        await self._waits.sleep(*key_and(timedelta, key, delay))

    @overload
    async def durable_sleep(self, delay: timedelta, /) -> None: ...
    @overload
    async def durable_sleep(self, key: str, delay: timedelta, /) -> None: ...
    async def durable_sleep(self, key: Any, delay: Any = None, /) -> None:
        """Another name for `sleep`."""
        await self._waits.sleep(*key_and(timedelta, key, delay))

    @overload
    async def sleep_until(self, when: datetime, /) -> None: ...
    @overload
    async def sleep_until(self, key: str, when: datetime, /) -> None: ...
    async def sleep_until(self, key: Any, when: Any = None, /) -> None:
        """Sleep until `when`, by the platform's clock; not at all if that has passed. It needs a time zone."""
        await self._waits.sleep_until(*key_and(datetime, key, when))

    @overload
    async def wait_signal(
        self, name: str, *, type: type[T], timeout: timedelta | None = None, key: str | None = None
    ) -> T: ...
    @overload
    async def wait_signal(self, name: str, *, timeout: timedelta | None = None, key: str | None = None) -> Any: ...
    async def wait_signal(
        self, name: str, *, type: Any = Any, timeout: timedelta | None = None, key: str | None = None
    ) -> Any:
        """Wait for a signal of that name, and give its data, read as `type`. One that has come before counts.

        Several signals of a name go to the waits for it in order. Two waits for one name at once need a `key` each.

        Raises:
            SignalTimeout: none came within `timeout`; the same after a resume. (It is a `TimeoutError`.)
            InvalidInput: its data is no `type`.
        """
        return await self._waits.signal(name, timeout, type, key)

    @overload
    async def call(self, workflow: Startable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(
        self, workflow: Startable[..., R], /, *args: Any, key: str | None, id: str | None = None,
        on_end: OnEnd = ..., labels: Mapping[str, str] = ..., **kwargs: Any,
    ) -> R: ...  # fmt: skip
    @overload
    async def call(
        self, workflow: Startable[..., R], /, *args: Any, id: str | None, on_end: OnEnd = ...,
        labels: Mapping[str, str] = ..., **kwargs: Any,
    ) -> R: ...  # fmt: skip
    @overload
    async def call(
        self, workflow: Startable[..., R], /, *args: Any, on_end: OnEnd, labels: Mapping[str, str] = ..., **kwargs: Any
    ) -> R: ...
    @overload
    async def call(self, workflow: Startable[..., R], /, *args: Any, labels: Mapping[str, str], **kwargs: Any) -> R: ...
    @overload
    async def call(
        self, workflow: str, input: Mapping[str, object] | None = None, /, *, key: str | None = None,
        id: str | None = None, on_end: OnEnd = ..., labels: Mapping[str, str] = ...,
        version: int | None = None,
    ) -> Any: ...  # fmt: skip
    async def call(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a workflow as a child and wait for its result: once, however often this code is run again.

        A `Workflow` with its arguments, or a workflow's name with its input by parameter. `key` is made of the input
        unless given, and the child's `id` of the key; `labels` are for lists; `on_end` says what becomes of it when
        this instance ends first: `"cancel"` it (default), `"leave"` it, or `"wait"` for it. `version` of a
        registered JSON workflow, by name, is the last one unless given.

        Raises:
            ChildFailed: it failed, or could not be started. ChildCancelled: it was cancelled.
        """
        return await self._children.call(workflow, args, kwargs)

    @overload
    async def start_child(self, workflow: Startable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Child[R]": ...
    @overload
    async def start_child(
        self, workflow: Startable[..., R], /, *args: Any, key: str | None, id: str | None = None,
        on_end: OnEnd = ..., labels: Mapping[str, str] = ..., **kwargs: Any,
    ) -> "Child[R]": ...  # fmt: skip
    @overload
    async def start_child(
        self, workflow: Startable[..., R], /, *args: Any, id: str | None, on_end: OnEnd = ...,
        labels: Mapping[str, str] = ..., **kwargs: Any,
    ) -> "Child[R]": ...  # fmt: skip
    @overload
    async def start_child(
        self, workflow: Startable[..., R], /, *args: Any, on_end: OnEnd, labels: Mapping[str, str] = ..., **kwargs: Any
    ) -> "Child[R]": ...
    @overload
    async def start_child(
        self, workflow: Startable[..., R], /, *args: Any, labels: Mapping[str, str], **kwargs: Any
    ) -> "Child[R]": ...
    @overload
    async def start_child(
        self, workflow: str, input: Mapping[str, object] | None = None, /, *, key: str | None = None,
        id: str | None = None, on_end: OnEnd = ..., labels: Mapping[str, str] = ...,
        version: int | None = None,
    ) -> "Child[Any]": ...  # fmt: skip
    async def start_child(self, workflow: Any, /, *args: Any, **kwargs: Any) -> "Child[Any]":
        """Start a child as `call` does, and go on; returns when the journal has the request."""
        return Child(self._children, await self._children.request(workflow, args, kwargs))

    # what is derived from tenant, instance, key and the run that `continue_as` began, and needs no record

    def uuid(self, key: str) -> UUID:
        """The same UUID in every attempt, and another one after `continue_as`."""
        return UUID(bytes=self._derived("uuid", key)[:16], version=5)

    def random(self, key: str) -> random.Random:
        """A generator of random numbers that starts the same in every attempt, and another one after `continue_as`."""
        return random.Random(self._derived("random", key))

    def idempotency_key(self, key: str) -> str:
        """32 hex digits to hand to an outside service: the same in every attempt, also after a `retry` of the instance;
        others after `continue_as`, whose steps are new ones."""
        return self._derived("idempotency", key).hex()[:32]

    # what may be lost

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the work is; at most one report a second is sent. Also inside a step."""
        if not self._operations.replaying:
            self._on_loop(self._reports.progress, done, total)

    def log(self, message: str, *, level: Level = "info", **data: object) -> None:
        """Write a line into the instance's log. Silent while a resumed run is answered from its memos."""
        if not self._operations.replaying:
            self._on_loop(self._reports.log, level, message, _log_data(data))

    # about itself

    @property
    def tenant(self) -> str:
        return self._attempt.tenant

    @property
    def instance(self) -> str:
        """The instance's id."""
        return self._attempt.instance

    @property
    def attempt(self) -> int:
        """How often this instance was handed out, this time included."""
        return self._attempt.attempt

    @property
    def labels(self) -> Mapping[str, str]:
        return MappingProxyType(dict(self._attempt.labels))

    @property
    def stopping(self) -> Why | None:
        """Why the instance must leave its process, once it must."""
        return self._attempt.stopping

    def _derived(self, purpose: str, key: str) -> bytes:
        frame = FRAME.get(None)
        path = check_key((frame.prefix if frame else "") + key)
        parts = [purpose, self._attempt.tenant, self._attempt.instance, path]
        if self._attempt.floor:
            parts.append(str(self._attempt.floor))
        return hashlib.sha256("\0".join(parts).encode()).digest()

    def _on_loop(self, fn: Callable[..., None], *args: object) -> None:
        loop = self._attempt.loop
        if asyncio._get_running_loop() is loop:
            fn(*args)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(fn, *args)


class Child(Generic[R]):
    """A child workflow that this instance has started. `R` is what it returns."""

    def __init__(self, children: Children, request: Request) -> None:
        self._children = children
        self._request = request

    def __repr__(self) -> str:
        return f"Child({self.id!r})"

    @property
    def id(self) -> str:
        """The child's id, by which a client reaches it."""
        return self._request.id

    async def result(self) -> R:
        """Wait for its end. Raises `ChildFailed`, `ChildCancelled`; the same in every attempt."""
        result: R = await self._children.result(self._request)
        return result


def current() -> Context:
    """The context of the workflow (or step) that is running here. Raises `NoContext`."""
    frame = FRAME.get(None)
    if frame is None or not isinstance(frame.host.context, Context):
        raise NoContext(function="current()")
    return frame.host.context


def _log_data(data: dict[str, object]) -> bytes:
    try:
        return encode(data, key="log", limit=MAX_RECORD_VALUE_BYTES)
    except Exception:  # a log line must not fail a run
        return orjson.dumps({name: ascii(value) for name, value in data.items()})
