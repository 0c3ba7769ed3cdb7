"""Where code runs: which execution it belongs to, the prefix of its keys, and whether it is inside a step.

The frame lives in a context variable, so tasks (`gather`, `TaskGroup`) and `asyncio.to_thread` inherit it, and a
scope that one task opens is not seen by its siblings. A thread that was started without its context has no
frame: that is how `NoContext` is noticed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeVar

from runtara.protocol.errors import InvalidKey
from runtara.protocol.ids import check_key, escape_key_part

from .granted import Granted
from .signature import StepSpec

R = TypeVar("R")


class Host(Protocol):
    """What a frame's code may ask of its execution."""

    loop: asyncio.AbstractEventLoop
    granted: Granted

    @property
    def context(self) -> object: ...
    def adopt(self, task: "asyncio.Future[Any]") -> None: ...
    def call_step(
        self, spec: StepSpec, key: str | None, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Coroutine[Any, Any, Any]: ...
    def call_blocking(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R: ...


class Frame:
    """Immutable. `prefix` ends in `/` unless it is empty. `step_key`: of the step whose function runs here, if any.
    `is_undo`: of compensations, not of the workflow's code."""

    __slots__ = ("host", "is_undo", "prefix", "step_key")

    def __init__(self, host: Host, prefix: str = "", *, step_key: str | None = None, is_undo: bool = False) -> None:
        self.host = host
        self.prefix = prefix
        self.step_key = step_key
        self.is_undo = is_undo

    @property
    def in_step(self) -> bool:
        return self.step_key is not None

    def within(self, part: str) -> "Frame":
        """The frame of `ctx.scope(part)`. Raises `InvalidKey`."""
        if not part:
            raise InvalidKey(key=repr(part))
        prefix = check_key(f"{self.prefix}{escape_key_part(part)}/")
        return Frame(self.host, prefix, step_key=self.step_key, is_undo=self.is_undo)

    def body(self, key: str) -> "Frame":
        """The frame in which the function of step `key` runs: steps that it calls are plain calls."""
        return Frame(self.host, self.prefix, step_key=key, is_undo=self.is_undo)


FRAME: Final[ContextVar[Frame]] = ContextVar("runtara_frame")

_hosts: Final[set[Host]] = set()


def enter_process(host: Host) -> None:
    """From now on this process is a worker: a step called without a frame is a mistake."""
    _hosts.add(host)


def leave_process(host: Host) -> None:
    _hosts.discard(host)


def in_worker() -> bool:
    """Whether this process hosts a running execution."""
    return bool(_hosts)
