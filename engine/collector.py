"""Collecting what nobody uses: blobs whose instances went into an archive, or that no record ever spoke of.

A blob is stored before the record that names it, so what is unused may be about to be used. It is kept for a day, and
after that only goes once everything is folded that was in the journals by then: after a long outage the records that
name it may still lie there.

Invariants: nothing is collected while an engine cannot reach NATS, or is behind; any number of engines may look.
"""

import asyncio
import random
import time
from datetime import timedelta
from typing import Final

import asyncpg

from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.protocol.errors import RuntaraError, StreamMissing

from .platform import Platform
from .streams import stream_info

log = logger("collector")

GRACE: Final = timedelta(days=1)
LOOK_EVERY_SECONDS: Final = 600.0
CATCH_UP_SECONDS: Final = 30.0  # for the loops to fold what the journals had
CATCH_UP_LOOK_SECONDS: Final = 0.25


class Collector:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS * random.uniform(0.5, 1.5))  # engines take turns
            try:
                await self.collect(older_than=GRACE)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError, RuntaraError) as exc:
                log.warning("blobs_not_collected", reason=str(exc))

    async def collect(self, *, older_than: timedelta) -> int:
        """Forget what has been unused for so long; how many values that were."""
        before_us = time.time_ns() // 1_000 - older_than // timedelta(microseconds=1)
        if not await self._all_is_folded():
            log.info("blobs_not_collected", reason="what the journals have is not folded yet")
            return 0
        count = await self._platform.blobs.collect(before_us=before_us)
        if count:
            log.info("blobs_collected", count=count)
        return count

    async def _all_is_folded(self) -> bool:
        """Whether what is in the journals now is in the log a moment later."""
        ends = {n: await self._last_sequence(n) for n in range(self._platform.partitions)}
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while not await self._are_reached(ends):
                    await asyncio.sleep(CATCH_UP_LOOK_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _last_sequence(self, partition: int) -> int:
        info = await stream_info(self._platform.bus, self._platform.subjects.journal_stream(partition))
        if info is None:
            raise StreamMissing(stream=self._platform.subjects.journal_stream(partition))
        return info.state.last_seq

    async def _are_reached(self, ends: dict[int, int]) -> bool:
        rows = await self._platform.pool.fetch("SELECT id, cursor FROM partitions")
        return all(row["cursor"] >= ends.get(row["id"], 0) for row in rows)
