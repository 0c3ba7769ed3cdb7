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

from .signature import StepSpec

R = TypeVar("R")


class Host(Protocol):
    """What a frame's code may ask of its execution."""

    loop: asyncio.AbstractEventLoop

    @property
    def context(self) -> object: ...
    def adopt(self, task: "asyncio.Future[Any]") -> None: ...
    def call_step(
        self, spec: StepSpec, key: str | None, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Coroutine[Any, Any, Any]: ...
    def call_blocking(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R: ...


class Frame:
    """Immutable. `prefix` ends in `/` unless it is empty; `is_undo`: of compensations, not of the workflow's code."""

    __slots__ = ("_body", "host", "in_step", "is_undo", "prefix")

    def __init__(self, host: Host, prefix: str = "", *, in_step: bool = False, is_undo: bool = False) -> None:
        self.host = host
        self.prefix = prefix
        self.in_step = in_step
        self.is_undo = is_undo
        self._body: Frame | None = None

    def within(self, part: str) -> "Frame":
        """The frame of `ctx.scope(part)`. Raises `InvalidKey`."""
        if not part:
            raise InvalidKey(key=repr(part))
        return Frame(
            self.host, check_key(f"{self.prefix}{escape_key_part(part)}/"), in_step=self.in_step, is_undo=self.is_undo
        )

    def body(self) -> "Frame":
        """The frame in which a step's function runs: steps that it calls are plain calls."""
        if self._body is None:
            self._body = Frame(self.host, self.prefix, in_step=True, is_undo=self.is_undo)
        return self._body


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
