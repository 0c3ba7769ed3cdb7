"""Waiting for something to become true, with a deadline: what tests do instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")
_PAUSE_SECONDS: Final = 0.01


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], *, within: float = ..., what: str = ...) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], *, within: float = ..., what: str = ...) -> T: ...
async def eventually(predicate: Callable[[], Any], *, within: float = 10.0, what: str = "") -> Any:
    """Call `predicate` until what it returns (or what its awaitable yields) is true, and return that.

    An `AssertionError` in it counts as "not yet". After `within` seconds the last one, or a new one that shows
    the last value, is raised.
    """
    deadline = time.monotonic() + within
    while True:
        value: object = None
        failure: AssertionError | None = None
        try:
            answer = predicate()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"{what or predicate} was still {value!r} after {within:g} s")
        await asyncio.sleep(_PAUSE_SECONDS)
