"""What an owner does for the schedules of its partition: starts what is due, and looks what became of it.

A start goes into the journal of the instance's partition and only then moves `next_due`, so an engine that dies in
between leaves the same start to the next one, which sends the same record again; the lifecycle has no second effect of
it. Two engines that both believe to own the partition send the same, too.

Invariants: due is what the journal's clock says, never the machine's; until that is known, nothing is due. A schedule
that cannot be read or sent keeps no other from its time. What is not stored is tried again, and stays due meanwhile.
"""

import asyncio
import time
from typing import Final

from runtara.infra.bus import NotAcknowledged, PayloadTooLarge, PublishRefused
from runtara.infra.clock import JournalClock
from runtara.infra.logs import logger
from runtara.protocol.errors import BadInput
from runtara.protocol.frames import encode_frame
from runtara.protocol.ids import partition_of

from . import cadence, schedules
from .platform import Platform
from .schedules import Schedule

log = logger("scheduler")

LOOK_SECONDS: Final = 0.5  # until a schedule that was made or changed elsewhere is seen
SETTLE_SECONDS: Final = 0.1  # between two looks at what became of a start
AT_ONCE: Final = 32  # schedules that are looked after side by side
MAX_OUTCOMES: Final = 1_000
RESEND_SECONDS: Final = 60.0  # a journal that was lost, and that somebody accepted to lose, had some that nobody folded

ScheduleId = tuple[str, str]  # tenant, name


class Scheduler:
    """Of one partition. `run` it as long as the partition is owned and everything in its journal is folded."""

    def __init__(self, platform: Platform, partition: int, clock: JournalClock) -> None:
        self._platform = platform
        self._pool = platform.pool
        self._partition = partition
        self._clock = clock
        self._broken: dict[ScheduleId, str] = {}  # which revision of a schedule this engine cannot read
        self._stuck: set[ScheduleId] = set()  # those that stay due, for whatever reason
        self._waiting: dict[tuple[ScheduleId, str], float] = {}  # instances on their way, and when they were sent last

    async def run(self) -> None:
        while True:
            waits = LOOK_SECONDS
            if self._clock.is_known:
                waits = min(await self._settle(), await self._start_due())
            await asyncio.sleep(waits)

    async def _settle(self) -> float:
        """Look what became of starts; seconds until the next look."""
        found, waiting = await schedules.outcomes(self._pool, self._partition, MAX_OUTCOMES)
        for outcome in found:
            if outcome.problem is not None:
                log.warning(
                    "schedule_not_started", tenant=outcome.tenant, schedule=outcome.name, reason=outcome.problem
                )
            await schedules.settle(self._pool, outcome, self._clock.now_us())
        await self._send_again(waiting)
        return SETTLE_SECONDS if waiting else LOOK_SECONDS

    async def _send_again(self, waiting: list[tuple[ScheduleId, str]]) -> None:
        """What is on its way for so long that it may be lost. Once more has no other effect."""
        now = time.monotonic()
        self._waiting = {sent: self._waiting.get(sent, now) for sent in waiting}
        for (id, instance), since in self._waiting.items():
            schedule = await schedules.load(self._pool, *id) if now - since > RESEND_SECONDS else None
            if schedule is None:
                continue
            self._waiting[id, instance] = now
            try:
                await send(self._platform, schedule, instance)
            except (NotAcknowledged, PublishRefused) as exc:
                log.warning("schedule_delayed", tenant=id[0], schedule=id[1], reason=str(exc))

    async def _start_due(self) -> float:
        """Start what is due; seconds until something may be due again."""
        now = self._clock.now_us()
        rows = await self._pool.fetch(schedules.DUE, self._partition, now, AT_ONCE + len(self._stuck))
        due = [(row["tenant"], row["name"]) for row in rows]
        done = await asyncio.gather(*(self._look_after(id) for id in due))
        self._stuck = {id for id, is_done in zip(due, done, strict=True) if not is_done}
        self._broken = {id: revision for id, revision in self._broken.items() if id in self._stuck}
        if any(done):
            return SETTLE_SECONDS if sum(done) < AT_ONCE else 0.0
        soonest = await self._pool.fetchval(schedules.SOONEST, self._partition, now)
        if soonest is None:
            return LOOK_SECONDS
        return min(max(self._clock.seconds_until(soonest), 0.0), LOOK_SECONDS)

    async def _look_after(self, id: ScheduleId) -> bool:
        """Whether there is nothing left to do for it now."""
        tenant, name = id
        schedule = await schedules.load(self._pool, tenant, name)
        if schedule is None or schedule.paused or schedule.next_due > self._clock.now_us():
            return True
        if self._broken.get(id) == schedule.revision:
            return False
        try:
            await self._act(schedule)
        except (BadInput, PayloadTooLarge) as exc:  # its time zone is not known here, say
            self._broken[id] = schedule.revision
            log.error("schedule_unreadable", tenant=tenant, schedule=name, reason=str(exc))
            now = self._clock.now_us()
            await schedules.advance(
                self._pool, schedule, next_due=schedule.next_due, sent=[], problem=str(exc), now=now
            )
            return False
        except (NotAcknowledged, PublishRefused) as exc:
            log.warning("schedule_delayed", tenant=tenant, schedule=name, reason=str(exc))
            return False
        return True

    async def _act(self, schedule: Schedule) -> None:
        """Raises `NotAcknowledged` or `PublishRefused` if a start could not be stored: it stays due."""
        now = self._clock.now_us()
        plan = cadence.plan(schedule.cadence, schedule.next_due, now, schedule.catch_up)
        starts, note = plan.starts, plan.note
        if starts != [schedule.next_due]:
            schedule = await self._recall(schedule, now)
        if starts and schedule.overlap == "skip" and (why := await schedules.unended(self._pool, schedule)):
            note, starts = f"skipped at {cadence.stamp(starts[-1])} because {why}", []
        instances = [schedule.instance(due) for due in starts]
        for instance in instances:
            await send(self._platform, schedule, instance)
        if note is not None:
            log.info("schedule_skipped", tenant=schedule.tenant, schedule=schedule.name, reason=note)
        await schedules.advance(self._pool, schedule, next_due=plan.next_due, sent=instances, problem=note, now=now)

    async def _recall(self, schedule: Schedule, now: int) -> Schedule:
        """An engine that died as soon as it had sent what was due first has not noted that: it counts, too."""
        first = schedule.instance(schedule.next_due)
        outcome = await schedules.outcome_of(self._pool, schedule, first)
        if outcome is None or outcome.problem is not None or first in schedule.recent:
            return schedule
        await schedules.remember(self._pool, schedule, [first])
        await schedules.settle(self._pool, outcome, now)
        return await schedules.load(self._pool, schedule.tenant, schedule.name) or schedule


async def send(platform: Platform, schedule: Schedule, instance: str, actor: str | None = None) -> None:
    """Into the journal. Raises `NotAcknowledged` or `PublishRefused`: the same again later does no harm."""
    partition = partition_of(schedule.tenant, instance, platform.partitions)
    frame = encode_frame([schedule.start(instance, actor)])
    await platform.bus.publish_acked(platform.subjects.engine(partition), frame)
