"""Asking what became of waits that have been open for long: the word that they have an outcome travels at most once.

Invariant: few questions are under way at once, each about what happened since the last one about that instance.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from runtara.infra.logs import logger
from runtara.protocol.api import EventsReply, EventsRequest
from runtara.protocol.errors import RuntaraError
from runtara.protocol.events import WaitResolved
from runtara.protocol.messages import Memo

from .connection import Connection

log = logger("outcomes")

ASK_SECONDS: Final = 10.0  # a wait is asked about that often
MAX_ASKING: Final = 8


class Waiter(Protocol):
    """An instance hosted here. `version`: up to which its history is known."""

    version: int

    @property
    def id(self) -> str: ...
    def waits_longer_than(self, seconds: float) -> bool: ...
    def resolved(self, memo: Memo) -> None: ...


class Outcomes:
    """The questions of one process. Close it before its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def sweep(self, waiters: Iterable[Waiter]) -> None:
        """Ask for those that are due. Called a few times a second."""
        for waiter in waiters:
            if len(self._asking) >= MAX_ASKING:
                return
            if waiter.waits_longer_than(ASK_SECONDS):
                task = asyncio.get_running_loop().create_task(self._ask(waiter), name=f"outcomes {waiter.id}")
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, waiter: Waiter) -> None:
        try:
            await tell_outcomes(self._connection, waiter)
        except RuntaraError as exc:
            log.debug("outcomes_unknown", instance=waiter.id, reason=str(exc))


async def tell_outcomes(connection: Connection, waiter: Waiter) -> None:
    """Read what happened to `waiter` since its version, and tell it the outcomes among that."""
    more = True
    while more:
        page = await connection.call("events", EventsRequest(after=waiter.version), EventsReply, instance=waiter.id)
        for event in page.events:
            waiter.version = event.version
            if event.type == WaitResolved.__name__ and event.key is not None:
                waiter.resolved(
                    Memo(key=event.key, version=event.version, type=event.type, data=event.data, at=event.at)
                )
        more = page.more
