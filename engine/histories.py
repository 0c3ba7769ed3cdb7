"""The histories with which claims are answered: whoever wakes a thousand instances reads them a hundred at a time.

Most are short: one query reads those of all the claims that wait. A long one, or one that a retry made partly
forgotten, is read by itself, in pages.

Invariant: what is answered is what the log held up to the claim, read from the primary after its commit.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg

from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.projections.instances import InstanceRow
from runtara.protocol.limits import MAX_INLINE_HISTORY_BYTES
from runtara.protocol.messages import Memo

from . import log as event_log
from .fold_values import ClaimDue

log = logger("histories")

AT_ONCE: Final = 128  # short ones, in one query; with their limits that is 8 MiB at most
LONG_AT_ONCE: Final = 4

Wanted = tuple[ClaimDue, InstanceRow]
Answer = Callable[[list[tuple[ClaimDue, InstanceRow, list[Memo], bool]]], None]


class Histories:
    """`answer` gets claims with their memos, and whether there are more."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", answer: Answer) -> None:
        self._pool = pool
        self._answer = answer
        self._waiting: list[Wanted] = []
        self._arrived = asyncio.Event()
        self._long = asyncio.Semaphore(LONG_AT_ONCE)

    def want(self, due: ClaimDue, row: InstanceRow) -> None:
        self._waiting.append((due, row))
        self._arrived.set()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    wanted, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                    for due, row in await self._answer_short(wanted):
                        group.create_task(self._answer_long(due, row))

    async def _answer_short(self, wanted: list[Wanted]) -> list[Wanted]:
        """Those that are too long for it. Claims that cannot be answered now are sent again by whoever made them."""
        try:
            async with self._pool.acquire() as connection:
                found = await event_log.short_memos(
                    connection, [(due.tenant, due.instance, row.state, due.version) for due, row in wanted]
                )
        except CONNECTION_ERRORS as exc:
            log.warning("claims_not_answered", count=len(wanted), reason=repr(exc))
            return []
        answered = zip(wanted, found, strict=True)
        self._answer([(due, row, memos, False) for (due, row), memos in answered if memos is not None])
        return [want for want, memos in zip(wanted, found, strict=True) if memos is None]

    async def _answer_long(self, due: ClaimDue, row: InstanceRow) -> None:
        try:
            async with self._long, self._pool.acquire() as connection:
                memos, more = await event_log.memos(
                    connection, due.tenant, due.instance, row.state, after=0, up_to=due.version,
                    max_bytes=MAX_INLINE_HISTORY_BYTES,
                )  # fmt: skip
        except CONNECTION_ERRORS as exc:
            log.warning("claims_not_answered", count=1, reason=repr(exc))
        else:
            self._answer([(due, row, memos, more)])
