"""What the owner of a partition does between take-over and step-down.

Invariants: nothing is let out before its commit, and in the order of the commits; only when everything is folded that
was in the journal at take-over does the owner act by itself. Whatever ends one of the tasks ends the tenure.
"""

import asyncio
from typing import Final

from runtara.infra.bus import NotAcknowledged, PublishRefused
from runtara.infra.clock import JournalClock
from runtara.infra.logs import logger
from runtara.infra.postgres import PgConnection
from runtara.protocol.frames import encode_frame
from runtara.protocol.records import Owner

from . import log as event_log
from .committer import Committer
from .folding import Folding
from .log import Ownership
from .outlets import Outlets
from .platform import Platform
from .purge import Purger
from .quotas import Quotas
from .reader import JournalReader
from .scheduler import Scheduler
from .watch import Watch

log = logger("partition")

RETRY_SECONDS: Final = 0.5
RENEW_SECONDS: Final = 1.0


class Tenure:
    """`connection` is the one it commits on; `until` the journal's last sequence at take-over."""

    def __init__(self, platform: Platform, ownership: Ownership, connection: PgConnection, until: int) -> None:
        self._platform = platform
        self._ownership = ownership
        self._until = until
        self._outlets = Outlets(platform, ownership)
        self._folding = Folding(platform, ownership.partition, ownership.position)
        self._purger = Purger(
            platform.bus,
            platform.subjects.journal_stream(ownership.partition),
            keep_seconds=platform.settings.journal_keep_seconds,
            cursor=ownership.anchor.cursor,
        )
        self._quotas = Quotas(
            platform.bus,
            platform.subjects,
            ownership.partition,
            platform.credentials,
            cursor=lambda: self._committer.anchor.cursor,
        )
        self._committer = Committer(
            connection, ownership, self._folding, self._outlets, self._purger, self._quotas
        )  # fmt: skip
        self._clock = JournalClock()
        self._caught_up = asyncio.Event()
        self._committing = asyncio.Lock()

    async def run(self, asked: asyncio.Event) -> None:
        """Returns when it was `asked` to end, between two commits."""
        stream = self._platform.subjects.journal_stream(self._ownership.partition)
        async with JournalReader(self._platform.bus, stream, after=self._ownership.anchor.cursor) as reader:
            watch = Watch(
                self._platform,
                self._ownership,
                self._outlets,
                self._clock,
                is_drained=lambda: reader.is_drained and not self._folding.is_blocked,
            )
            self._outlets.watch = watch
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._fold(reader, watch), name="fold"),
                    group.create_task(self._commit(), name="commit"),
                    group.create_task(self._renew(), name="renew"),
                    group.create_task(self._outlets.run(self._caught_up), name="outlets"),
                    group.create_task(self._announce(watch), name="announce"),
                    group.create_task(self._purger.run(), name="purge"),
                    group.create_task(self._quotas.run(), name="quotas"),
                ]
                await asked.wait()
                async with self._committing:  # from here on nothing more is committed
                    await self._outlets.settle()
                    for task in tasks:
                        task.cancel()

    async def _fold(self, reader: JournalReader, watch: Watch) -> None:
        while True:
            frames = await reader.next_batch()
            watch.clock_seen(frames[-1].time_us)
            watch.heard(await self._folding.add(frames))

    async def _commit(self) -> None:
        while True:
            if self._committer.anchor.cursor >= self._until:
                self._caught_up.set()
            batch = await self._folding.take()
            async with self._committing:
                await self._committer.commit(batch)

    async def _announce(self, watch: Watch) -> None:
        """Only when everything is folded that was there at take-over may this owner act by itself."""
        await self._caught_up.wait()
        record = Owner(instance="", token=self._ownership.token)
        subject = self._platform.subjects.engine(self._ownership.partition)
        while True:
            try:
                await self._platform.bus.publish_acked(subject, encode_frame([record]))
                break
            except (NotAcknowledged, PublishRefused) as exc:
                log.debug("owner_record_delayed", reason=str(exc))
                await asyncio.sleep(RETRY_SECONDS)
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(), name="watch")
            group.create_task(Scheduler(self._platform, self._ownership.partition, self._clock).run(), name="schedules")

    async def _renew(self) -> None:
        """Through a connection of its own: a long commit must not cost us the lease it renews itself.

        Not while we cannot reach NATS: another engine may.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if not self._platform.bus.is_connected:
                continue
            async with self._platform.pool.acquire() as connection:
                await event_log.renew(connection, self._ownership.partition, self._ownership.token)
            self._outlets.committed(self._committer.anchor)
