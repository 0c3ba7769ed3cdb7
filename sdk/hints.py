"""The hint that something was committed, for whoever follows a log. It never stands in for asking."""

import asyncio
from contextlib import suppress
from typing import Final

from nats.aio.msg import Msg

from .connection import Connection

FOLLOW_SECONDS: Final = 1.0  # between two looks for new events, unless a hint comes earlier
HINT_SETTLE_SECONDS: Final = 0.02


class CommitHints:
    """Wakes whoever follows the log soon after a commit, and at the latest after a second."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._cursors: dict[str, bytes] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "CommitHints":
        self._subscription = await self._connection.subscribe(self._subject, self._on_hint)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._connection.bus.nats.is_closed:
            await self._subscription.unsubscribe()

    async def wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_SECONDS):
                await self._changed.wait()
                await asyncio.sleep(HINT_SETTLE_SECONDS)  # commits come in bursts: one look for many of them
        self._changed.clear()

    def _on_hint(self, msg: Msg) -> None:
        if self._cursors.get(msg.subject) != msg.data:  # it is repeated every second
            self._cursors[msg.subject] = msg.data
            self._changed.set()
