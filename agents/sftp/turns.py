"""How many sessions a process has at once with one server: more wait for their turn.

A workflow with a hundred parallel branches would otherwise open a hundred connections, of which OpenSSH drops those
above ten that are not yet logged in, and many servers those above a few of one user.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

MAX_SESSIONS: Final = 8

_Turns = WeakValueDictionary[tuple[str, int], asyncio.Semaphore]
_of_loop: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns]] = WeakKeyDictionary()


@asynccontextmanager
async def turn(host: str, port: int) -> AsyncIterator[None]:
    """Waits until a session may be opened. Nothing is kept of servers that nobody uses."""
    turns = _of_loop.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    semaphore = turns.get((host, port))
    if semaphore is None:
        semaphore = turns[host, port] = asyncio.Semaphore(MAX_SESSIONS)
    async with semaphore:
        yield
