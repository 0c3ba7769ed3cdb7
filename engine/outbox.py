"""The outbox: commands to instances, maybe of other partitions, sent in order and deleted once they are there.

Rows are written in the transaction that decided them, so a crash in between sends them later, once more at worst;
their ids derive from their cause, so once more has no effect. One frame is in flight a target partition.
"""

import asyncio
from collections import defaultdict
from typing import Final

import asyncpg

from runtara.infra.bus import Bus, NotAcknowledged, PublishRefused
from runtara.infra.logs import logger
from runtara.protocol.frames import join_frame, split_frames
from runtara.protocol.subjects import Subjects

from . import sql

log = logger("outbox")

PAGE: Final = 512
LOOK_AGAIN_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.5

Row = tuple[int, int, bytes]  # sequence, n, record


class OutboxSender:
    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", bus: Bus, subjects: Subjects, partition: int) -> None:
        self._pool = pool
        self._bus = bus
        self._subjects = subjects
        self._partition = partition
        self._written = asyncio.Event()
        self._written.set()  # a former owner may have left some

    def wake(self) -> None:
        self._written.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._written.wait()
            except TimeoutError:
                pass
            self._written.clear()
            while await self._send_page():
                pass

    async def _send_page(self) -> bool:
        """Whether there may be more to send now."""
        rows = await self._pool.fetch(sql.NEXT_OUTBOX, self._partition, PAGE)
        targets: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            targets[row["target"]].append((row["sequence"], row["n"], row["record"]))
        done = await asyncio.gather(*(self._send(target, waiting) for target, waiting in targets.items()))
        if not all(done):
            await asyncio.sleep(RETRY_SECONDS)
        return bool(rows)

    async def _send(self, target: int, rows: list[Row]) -> bool:
        while rows:
            count = split_frames([record for _, _, record in rows])
            frame, rows = rows[:count], rows[count:]
            try:
                payload = join_frame(record for _, _, record in frame)
                await self._bus.publish_acked(self._subjects.engine(target), payload)
            except (NotAcknowledged, PublishRefused) as exc:
                log.warning("outbox_delayed", target=target, reason=str(exc))
                return False
            await self._pool.execute(
                sql.DROP_OUTBOX, self._partition, [sequence for sequence, _, _ in frame], [n for _, n, _ in frame]
            )
        return True
