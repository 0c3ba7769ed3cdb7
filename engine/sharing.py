"""Sharing the partitions: every engine says how many it owns, and who owns more gives to who owns fewer.

An engine that lives says so once a second in the table `engines`. One that owns at least two partitions more than
another gives one back, between two commits; the other one, which looks for free partitions twice a second, takes it.
So a partition only ever moves from more to fewer, the shares come to rest when they differ by one at most, and then
nothing moves any more. Of several engines that could give, the one with the most does, one partition every few
seconds. A free partition is left to the engines with the fewest for a moment, then to whoever finds it: nobody has to
be trusted to take it.

Invariant: nothing here is needed for safety. Who may write a partition is settled by its own row (`sql.TAKE_OVER`,
`sql.ADVANCE`); an old or wrong idea of the others costs a needless hand-over at worst.

Rejected: assigning partitions by a leader or by hashing, which needs agreement on who lives; hints over NATS, because
who owns nothing but a connection to NATS can take no partition.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

import asyncpg

from runtara.infra.bus import Bus
from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.protocol.ids import new_token

from . import sql

log = logger("sharing")

ANNOUNCE_SECONDS: Final = 1.0
LIVE_SECONDS: Final = 3.0  # less than a partition's lease: when that runs out, its dead owner counts no more
PATIENCE_SECONDS: Final = 2.0  # for which a free partition is left to engines that own fewer
GIVE_SECONDS: Final = 3.0  # between two hand-overs: by then the first has a taker who has said so, or was taken back
UNWANTED_SECONDS: Final = 60.0  # before the next hand-over, if nobody took the last one
LEAVE_SECONDS: Final = 2.0  # for all partitions to be given back when the engine ends


class Sharing:
    """One engine's share. `run` it beside the loops of the partitions, which enter `owning` for as long as they own."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", bus: Bus) -> None:
        self.id = new_token()
        self.is_leaving = False
        self._pool = pool
        self._bus = bus
        self._owned: dict[int, asyncio.Event] = {}  # in the order in which they were taken
        self._others: dict[str, int] = {}
        self._looked_at = -LIVE_SECONDS
        self._given: int | None = None  # the partition that was given back last
        self._gives_from = 0.0
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def owning(self, partition: int) -> Iterator[asyncio.Event]:
        """While it is owned. The event is set when the partition shall be given back."""
        asked = self._owned[partition] = asyncio.Event()
        if self.is_leaving:
            asked.set()
        if partition == self._given and time.monotonic() < self._gives_from:  # nobody else had it meanwhile
            self._given, self._gives_from = None, time.monotonic() + UNWANTED_SECONDS
        try:
            yield asked
        finally:
            del self._owned[partition]
            self._changed.set()

    @property
    def patience(self) -> float:
        """Seconds for which a partition must have been free before this engine takes it."""
        return PATIENCE_SECONDS if any(owned < len(self._owned) for owned in self._live().values()) else 0.0

    async def run(self) -> None:
        while True:
            if self._bus.is_connected and not self.is_leaving:  # else a partition would be of no use to us
                try:
                    await self._look()
                except (asyncpg.PostgresError, *CONNECTION_ERRORS) as exc:
                    log.debug("engine_not_announced", reason=repr(exc))
                else:
                    self._give_one_back()
            await asyncio.sleep(ANNOUNCE_SECONDS)

    async def leave(self) -> None:
        """Give every partition back, for others to take at once; returns when that is done, or took too long."""
        self.is_leaving = True
        await self.forget()  # first: an engine that owns nothing any more is not one to leave partitions to
        for asked in self._owned.values():
            asked.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                while self._owned:
                    self._changed.clear()
                    await self._changed.wait()

    async def forget(self) -> None:
        """Say that this engine lives no more."""
        with contextlib.suppress(asyncpg.PostgresError, *CONNECTION_ERRORS):
            await self._pool.execute(sql.FORGET_ENGINE, self.id, timeout=LEAVE_SECONDS)

    def _live(self) -> dict[str, int]:
        """The other engines that live, and how many partitions they own."""
        return self._others if time.monotonic() - self._looked_at < LIVE_SECONDS else {}

    async def _look(self) -> None:
        rows = await self._pool.fetch(sql.ANNOUNCE_ENGINE, self.id, len(self._owned), LIVE_SECONDS)
        self._others = {row["id"]: row["owned"] for row in rows}
        self._looked_at = time.monotonic()

    def _give_one_back(self) -> None:
        if not self._others or time.monotonic() < self._gives_from:
            return
        if gives(self.id, len(self._owned), self._others):
            self._given, asked = list(self._owned.items())[-1]  # the one with the coldest cache
            self._gives_from = time.monotonic() + GIVE_SECONDS
            log.info("partition_to_give_back", partition=self._given, owned=len(self._owned))
            asked.set()


def gives(engine: str, owned: int, others: dict[str, int]) -> bool:
    """Whether `engine` is the one that shall give a partition back to one of the `others`."""
    is_uneven = owned - min(others.values()) > 1
    return is_uneven and all((owned, engine) > (theirs, other) for other, theirs in others.items())
