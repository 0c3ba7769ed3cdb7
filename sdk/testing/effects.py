"""What workflows do to the world outside, noted call by call, so that runs can be compared.

    effects = Effects()
    pay = effects.at_least_once(gateway.pay)
    greet = effects.at_most_once(mail.greet)

Invariants: a call is noted when it begins, with the step in which it happens; code of a process that died calls
nothing any more, as it would not exist.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from runtara.protocol.errors import Stopped

from ..scope import FRAME
from ..signature import is_async
from ..step import spec_of

F = TypeVar("F", bound=Callable[..., Any])
Promise = Literal["at least once", "at most once"]
_DECORATED: Final = "__runtara_step__"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """`step`: the key of the step in which it happened, None outside of steps. `host`: the attempt that made it."""

    what: str
    promise: Promise
    instance: str | None
    step: str | None
    host: object


class Effects:
    """Wraps functions so that their calls are noted in `calls`. One object serves any number of runs."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._is_dead: Callable[[object], bool] = lambda host: False

    def at_least_once(self, fn: F) -> F:
        """`fn`, noted. A crash may repeat a call, but only of a step that was not recorded; none may be missing."""
        return self._noted(fn, "at least once")

    def at_most_once(self, fn: F) -> F:
        """`fn`, noted. No crash may repeat a call; what a `checkpoint` guards may be missing."""
        return self._noted(fn, "at most once")

    def note(self, what: str, *, promise: Promise = "at least once") -> None:
        """Note something by hand, where it happens."""
        frame = FRAME.get(None)
        host = frame.host if frame is not None else None
        if host is not None and self._is_dead(host):
            raise asyncio.CancelledError("its process is dead") if _in_loop() else Stopped("its process is dead")
        self.calls.append(
            Call(
                what=what, promise=promise, instance=getattr(host, "instance", None),
                step=frame.step_key if frame is not None else None, host=host,
            )
        )  # fmt: skip

    @contextmanager
    def run(self, is_dead: Callable[[object], bool]) -> Iterator[None]:
        """A run begins: nothing is noted yet. `is_dead` says which attempts' processes have died."""
        self.calls, self._is_dead = [], is_dead
        try:
            yield
        finally:
            self._is_dead = lambda host: False

    def _noted(self, fn: F, promise: Promise) -> F:
        if hasattr(fn, _DECORATED):
            raise TypeError(
                f"{fn.__name__} is a @step: pass it as it is, effects=[{fn.__name__}], or wrap what it calls"
            )
        name = getattr(fn, "__name__", type(fn).__name__)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            self.note(_text(name, args, kwargs), promise=promise)
            return await fn(*args, **kwargs)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.note(_text(name, args, kwargs), promise=promise)
            return fn(*args, **kwargs)

        return cast(F, functools.wraps(fn)(call_async if is_async(fn) else call))


@contextmanager
def noted_steps(effects: Effects, steps: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """While this lasts, the calls of these steps are noted."""
    specs = []
    for step in steps:
        if not hasattr(step, _DECORATED):
            raise TypeError(f"{step!r} is not a @step: wrap it with Effects().at_least_once(…), and pass that object")
        specs.append(spec_of(step))
    originals = [spec.fn for spec in specs]
    try:
        for spec in specs:
            spec.fn = effects.at_least_once(spec.fn)
        yield
    finally:
        for spec, fn in zip(specs, originals, strict=True):
            spec.fn = fn


def _text(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    given = [repr(value) for value in args] + [f"{key}={value!r}" for key, value in sorted(kwargs.items())]
    return f"{name}({', '.join(given)})"


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None
