"""What the SDK needs from whoever hosts it, one small protocol each. In-memory twins are in `sdk.testing` and
`engine.memory`; they pass the same tests (`tests/contracts`).

Invariants of an `Outlet`: records leave in the order of the calls, whatever their kind; the returned future
may be cancelled by whoever waits for it (user code gave up), the record travels nonetheless; a future that
fails means that the claim no longer counts, and the execution ends as superseded.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from types import TracebackType
from typing import Literal, Protocol, TypeVar

from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import PartRequest
from runtara.protocol.messages import CommandAnswer
from runtara.protocol.records import AnyCommand, Record

T = TypeVar("T")

Durability = Literal["journal", "log"]
"""`journal`: acknowledged by the journal, where it counts if the attempt is current. `log`: committed by the engine."""

Why = Literal["pause", "cancel", "superseded", "drain"]
"""Why an instance must leave its process."""


class Outlet(Protocol):
    """Where one execution's records go, in order. All calls come from the event loop's thread."""

    def send(self, record: Record) -> asyncio.Future[int]:
        """Resolved with the journal sequence once the journal has acknowledged the record."""
        ...

    def send_committed(self, record: Record) -> asyncio.Future[None]:
        """Resolved once the engine has committed the record; fails if the engine rejected it."""
        ...

    def send_best_effort(self, record: Record) -> None:
        """May be lost. Never blocks, never raises."""
        ...


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time as an execution knows it: the journal's, and a way to wait by it. Nothing that waits is early."""

    def seen(self, journal_us: int) -> None:
        """The journal's clock has just shown this."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether the journal's clock was ever seen."""
        ...

    def now_us(self) -> int:
        """What the journal's clock shows, as far as that is known."""
        ...

    def utc_us(self) -> int:
        """What time it is, for user code."""
        ...

    def monotonic(self) -> float:
        """Seconds by a clock that nobody sets: for differences, also before the journal's is known."""
        ...

    def seconds_until(self, due_us: int) -> float:
        """Negative if that is past by the journal's clock."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> Timer: ...


class BlobDoor(Protocol):
    """The way to what keeps long values. Both raise what it refuses, and `Unavailable` if nobody answers."""

    async def put(self, message: bytes) -> None:
        """Hand over a part (`protocol.blobs.encode_part`). Returns when it is durable."""
        ...

    async def get(self, question: PartRequest) -> bytes:
        """Raises `BlobMissing`, `BlobCorrupt`."""
        ...


class Commands(Protocol):
    """A client's way to ask for something."""

    async def send(self, command: AnyCommand, *, timeout: float = ...) -> CommandAnswer:
        """Raises what the platform refused it with, or that nobody answered for `timeout` seconds."""
        ...

    async def fork(self, source: str, request: ForkRequest, *, timeout: float = ...) -> CommandAnswer:
        """As `send`, of a fork of the instance `source`."""
        ...


class Api(Protocol):
    """A client's way to read."""

    async def call(
        self, verb: str, question: object, answer: type[T], *, instance: str | None = None, timeout: float = ...
    ) -> T:
        """Raises what the platform answered instead."""
        ...


class Hints(Protocol):
    """Enter it, then `wait` returns when there may be something new to read, and now and then anyway."""

    async def __aenter__(self) -> "Hints": ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    async def wait(self) -> None: ...
