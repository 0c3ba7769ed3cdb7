"""What every blocking face stands on: an object that lives on an event loop, and a host that runs its coroutines there.

Invariant: a face has no state and no logic of its own; it waits for the loop and hands the answer on. Calling it on
the loop's own thread would wait for ever, so it refuses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, Literal, Protocol, TypeVar

from runtara.protocol.errors import WrongColour

I = TypeVar("I")  # noqa: E741  # the inner class
R = TypeVar("R")
T = TypeVar("T")


class Host(Protocol):
    """Runs coroutines for threads."""

    def call_blocking(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R: ...


class Face(Generic[I]):
    """The blocking face of `inner`."""

    def __init__(self, inner: I, host: Host) -> None:
        self._inner = inner
        self._host = host

    @property
    def is_blocking_face(self) -> Literal[True]:
        return True

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"

    def _call(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R:
        if asyncio._get_running_loop() is not None:
            raise WrongColour(function=f"sync.{type(self).__name__}", colour="blocking (def)")
        return self._host.call_blocking(operation)

    def _iterate(self, make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """The items of an asynchronous iterator, one wait each. It is closed when the loop over it ends."""
        items = make()
        try:
            while True:
                found = self._call(lambda: _next(items))
                if not found:
                    return
                yield found[0]
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                self._call(close)


async def _next(items: AsyncIterator[T]) -> list[T]:
    """The next item in a list; an empty list is the end (StopAsyncIteration does not cross threads)."""
    try:
        return [await anext(items)]
    except StopAsyncIteration:
        return []
