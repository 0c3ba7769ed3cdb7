"""How long a server may take for one thing, and for being tidied up after.

Keep-alive messages find servers that are gone; these limits find those that are there and do not answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, TypeVar

import asyncssh

T = TypeVar("T")
REQUEST_SECONDS: Final = 60.0  # for one request, or one chunk of a file
LISTING_SECONDS: Final = 600.0  # for a whole folder, of the most entries that are taken
TIDY_SECONDS: Final = 5.0  # for what must not hold up an error


async def in_time(work: Awaitable[T]) -> T:
    """Raises `TimeoutError`."""
    async with asyncio.timeout(REQUEST_SECONDS):
        return await work


async def tidy(work: Awaitable[object]) -> None:
    """As well as it goes."""
    with contextlib.suppress(asyncssh.Error, OSError):
        async with asyncio.timeout(TIDY_SECONDS):
            await work
