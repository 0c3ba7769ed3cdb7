"""What an owner does by the clock: fires timers, counts leases, repeats effects without evidence, purges the journal.

Invariants: nothing is decided here. A due timer, a worker that is silent, an instance that its worker does not list
become records on the engine's subject of the journal, under the owner's token, and count only when they are folded.
Ages of leases grow only in seconds in which a worker could have been heard. No wall clock is read: timers go by what is
seen of the journal's.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.bus import JetStreamError, NotAcknowledged, PublishRefused
from runtara.infra.clock import JournalClock
from runtara.infra.logs import logger
from runtara.projections.instances import InstanceRow
from runtara.projections.leases import Leases, Resident, WorkerId
from runtara.projections.timers import HORIZON_SECONDS, MAX_IN_MEMORY, RELOAD_SECONDS, TimerHeap
from runtara.protocol.errors import RuntaraError
from runtara.protocol.frames import encode_record, join_frame, split_frames
from runtara.protocol.ids import partition_of
from runtara.protocol.limits import MAX_FRAME_RECORDS
from runtara.protocol.messages import Heartbeat, Status
from runtara.protocol.records import Absent, Record, TimerDue, WorkerLost

from . import log as event_log
from . import sql
from .cache import Id
from .dispatch import RunDue
from .lifecycle import Timer, is_launched
from .log import Ownership
from .outlets import Outlets
from .platform import Platform
from .retelling import Retelling
from .streams import stream_info

log = logger("watch")

TICK_SECONDS: Final = 1.0
LATE_TICK_SECONDS: Final = 1.5  # a tick that came later was not a second of listening
SWEEP_SECONDS: Final = 5.0
REPUBLISH_SECONDS: Final = 30.0
SWEEP_LIMIT: Final = 5_000
IDLE_TIMER_SECONDS: Final = 0.5
MAX_EVIDENCE: Final = 100_000

_heartbeat_decoder = msgspec.json.Decoder(Heartbeat)


class Watch:
    """`is_drained`: all that has arrived is folded, so a worker that was not heard has not been heard."""

    def __init__(
        self, platform: Platform, ownership: Ownership, outlets: Outlets, *, is_drained: Callable[[], bool]
    ) -> None:
        self._platform = platform
        self._partition = ownership.partition
        self._ownership = ownership
        self._outlets = outlets
        self._is_drained = is_drained
        self._timers = TimerHeap()
        self._timers_changed = asyncio.Event()
        self._leases = Leases()
        self._owing: set[Id] = set()
        self._retelling = Retelling()
        self._evidence: dict[Id, int] = {}
        self._clock = JournalClock()
        self._clock_known = asyncio.Event()
        self._subject = platform.subjects.engine(ownership.partition)

    async def run(self) -> None:
        await self._load_residents()
        subscription = await self._platform.bus.subscribe(self._platform.subjects.heartbeats, self._on_heartbeat)
        self._platform.bus.on_reconnect.append(self._leases.reset_ages)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._load_timers(), name="load timers")
                group.create_task(self._fire_timers(), name="timers")
                group.create_task(self._count_leases(), name="leases")
                group.create_task(self._sweep(), name="sweep")
        finally:
            self._platform.bus.on_reconnect.remove(self._leases.reset_ages)
            if not self._platform.bus.nats.is_closed:
                await subscription.unsubscribe()

    # what the loop tells

    def clock_seen(self, journal_us: int) -> None:
        """A frame was stored at that time; our own `owner` record, which comes before any timer, is one."""
        self._clock.seen(journal_us)
        self._clock_known.set()

    def changed(self, before: InstanceRow | None, after: InstanceRow) -> None:
        old, new = before.state if before is not None else None, after.state
        self._track_timers(old.timers if old is not None else {}, after)
        if old is not None and old.claim is not None and old.claim is not new.claim:
            self._leases.ended((after.tenant, old.claim.worker), after.instance, old.claim.attempt)
        if new.claim is not None and (old is None or old.claim is not new.claim):
            self._claimed(after)
        id = (after.tenant, after.instance)
        if new.status is not Status.QUEUED:
            self._evidence.pop(id, None)  # nobody asks any more whether the queue has its request
        self._retelling.changed(id, old, new)
        if new.claim is not None and (new.pause or new.cancel is not None):
            self._owing.add(id)
        else:
            self._owing.discard(id)

    def heard(self, workers: set[WorkerId]) -> None:
        for worker in workers:
            self._leases.heard(worker)

    def queued(self, due: RunDue) -> None:
        if len(self._evidence) < MAX_EVIDENCE:
            self._evidence[due.tenant, due.instance] = due.attempt

    def _track_timers(self, old: dict[int, Timer], after: InstanceRow) -> None:
        timers = after.state.timers
        if old is timers:
            return
        horizon = self._clock.now_us() + HORIZON_SECONDS * 1_000_000
        for version, timer in timers.items():
            if version not in old and timer.due_us < horizon:
                self._timers.add((after.tenant, after.instance, version), timer.due_us)
                self._timers_changed.set()
        for version in old:
            if version not in timers:
                self._timers.drop((after.tenant, after.instance, version))

    def _claimed(self, row: InstanceRow) -> None:
        claim = row.state.claim
        if claim is None or row.state.external:
            return
        resident = Resident(row.instance, claim.attempt, claim.nonce, time.monotonic())
        self._leases.claimed((row.tenant, claim.worker), resident)

    async def _load_residents(self) -> None:
        async with self._platform.pool.acquire() as connection:
            found = await connection.fetch(sql.RUNNING, self._partition)
            for row in await event_log.load_rows(connection, [(r["tenant"], r["instance"]) for r in found]):
                self.changed(None, row)

    # timers

    async def _load_timers(self) -> None:
        await self._clock_known.wait()
        while True:
            horizon = self._clock.now_us() + HORIZON_SECONDS * 1_000_000
            rows = await self._platform.pool.fetch(sql.NEXT_TIMERS, self._partition, horizon, MAX_IN_MEMORY)
            for row in rows:
                self._timers.add((row["tenant"], row["instance"], row["version"]), row["due"])
            self._timers_changed.set()
            await asyncio.sleep(RELOAD_SECONDS)

    async def _fire_timers(self) -> None:
        await self._clock_known.wait()
        while True:
            await self._wait_for_a_timer()
            due = self._timers.take_due(self._clock.now_us(), MAX_FRAME_RECORDS)
            token = self._ownership.token
            await self._report(
                [
                    TimerDue(tenant=tenant, instance=instance, owner=token, timer=timer)
                    for tenant, instance, timer in due
                ]
            )

    async def _wait_for_a_timer(self) -> None:
        next_due = self._timers.next_due()
        wait = IDLE_TIMER_SECONDS
        if next_due is not None:
            wait = min(wait, max(0.0, self._clock.seconds_until(next_due)))
        self._timers_changed.clear()
        try:
            async with asyncio.timeout(wait):
                await self._timers_changed.wait()
        except TimeoutError:
            pass

    # leases

    async def _count_leases(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - before > LATE_TICK_SECONDS
            if late or not self._platform.bus.is_connected or not self._is_drained():
                continue
            for (tenant, worker), residents in self._leases.tick():
                log.warning("worker_lost", tenant=tenant, worker=worker, instances=len(residents))
                await self._report([self._lost(tenant, worker, resident) for resident in residents])

    def _lost(self, tenant: str, worker: str, resident: Resident) -> Record:
        return WorkerLost(
            tenant=tenant,
            owner=self._ownership.token,
            instance=resident.instance,
            attempt=resident.attempt,
            worker=worker,
        )

    async def _on_heartbeat(self, msg: Msg) -> None:
        sender = self._platform.subjects.parse_heartbeat(msg.subject)
        try:
            heartbeat = _heartbeat_decoder.decode(msg.data)
        except msgspec.MsgspecError:
            return
        if sender is None or heartbeat.worker != sender[1]:
            return
        self._platform.registry.heard(*sender)
        self._leases.heard(sender)
        await self._repeat_control(sender)
        if heartbeat.hosted is not None:
            made_at = time.monotonic() - heartbeat.hosted.age_ms / 1_000
            await self._compare(sender, heartbeat.hosted.instances, made_at)

    async def _repeat_control(self, worker: WorkerId) -> None:
        residents = list(self._leases.residents(worker))
        owed = [(resident, self._retelling.due((worker[0], resident.instance))) for resident in residents]
        await self._outlets.tell_resolved_again(worker, [(resident, due) for resident, due in owed if due])
        owing = [r.instance for r in residents if (worker[0], r.instance) in self._owing]
        if owing:
            async with self._platform.pool.acquire() as connection:
                for row in await event_log.load_rows(connection, [(worker[0], instance) for instance in owing]):
                    self._outlets.control(row)

    async def _compare(self, worker: WorkerId, listed: list[tuple[str, int, str]], made_at: float) -> None:
        """What the worker lists against what is resident there."""
        tenant = worker[0]
        ours = {
            (instance, attempt): nonce
            for instance, attempt, nonce in listed
            if partition_of(tenant, instance, self._platform.partitions) == self._partition
        }
        token = self._ownership.token
        await self._report(
            [
                Absent(tenant=tenant, owner=token, instance=r.instance, attempt=r.attempt, worker=worker[1])
                for r in self._leases.listed(worker, set(ours), made_at)
            ]
        )
        resident = {(r.instance, r.attempt) for r in self._leases.residents(worker)}
        strangers = [id for id in ours if id not in resident]
        if strangers:
            await self._tell_strangers(worker, {id: ours[id] for id in strangers})

    async def _tell_strangers(self, worker: WorkerId, listed: dict[tuple[str, int], str]) -> None:
        """An attempt that the worker lists and the log has ended. One whose claim is still on its way is left alone."""
        async with self._platform.pool.acquire() as connection:
            rows = await event_log.load_rows(connection, [(worker[0], instance) for instance, _ in listed])
        states = {row.instance: row.state for row in rows}
        for (instance, attempt), nonce in listed.items():
            state = states.get(instance)
            if state is None or state.attempt < attempt or is_launched(state, nonce):
                continue  # nor is what a runner launched a stranger: it lists that as long as it runs
            ended = state.attempt > attempt or (state.claim is None and state.requested is None)
            if ended or (state.claim is not None and state.claim.nonce != nonce):
                self._outlets.tell_superseded(*worker, instance, attempt, nonce, "the attempt has ended")

    # evidence and purging

    async def _sweep(self) -> None:
        """Repeat what the log says is due and nobody has confirmed; look after the journal's size."""
        while True:
            try:
                await self._check_run_queue()
                await self._write_evidence()
                await self._repeat_requests()
                await self._platform.registry.write_heard()
            except (RuntaraError, JetStreamError) as exc:
                log.warning("sweep_failed", reason=str(exc))
            await asyncio.sleep(SWEEP_SECONDS)

    async def _check_run_queue(self) -> None:
        """A run queue that was made anew holds nothing of what we sent: the evidence is void."""
        info = await stream_info(self._platform.bus, self._platform.subjects.run_stream)
        if info is None:
            log.error("run_queue_missing", stream=self._platform.subjects.run_stream)
            return
        await self._platform.pool.execute(sql.CLEAR_EVIDENCE, self._partition, info.created)

    async def _write_evidence(self) -> None:
        evidence, self._evidence = self._evidence, {}
        if evidence:
            tenants, instances = zip(*evidence, strict=True)
            await self._platform.pool.execute(
                sql.RECORD_DISPATCHED, list(tenants), list(instances), list(evidence.values())
            )

    async def _repeat_requests(self) -> None:
        now = self._clock.now_us()
        async with self._platform.pool.acquire() as connection:
            found = await connection.fetch(
                sql.UNDISPATCHED,
                self._partition,
                now - int(SWEEP_SECONDS * 1e6),
                now - int(REPUBLISH_SECONDS * 1e6),
                SWEEP_LIMIT,
            )
            rows = await event_log.load_rows(connection, [(r["tenant"], r["instance"]) for r in found])
        for row in rows:
            if event_log.is_run_due(row.state):
                self._outlets.request_run(row, first=False)

    # records of our own

    async def _report(self, records: list[Record]) -> None:
        """Into the journal, as frames; what cannot be stored now is reported again, since nothing forgets it here."""
        encoded = [encode_record(record) for record in records]
        while encoded:
            count = split_frames(encoded)
            frame, encoded = encoded[:count], encoded[count:]
            try:
                await self._platform.bus.publish_acked(self._subject, join_frame(frame))
            except (NotAcknowledged, PublishRefused) as exc:
                log.warning("engine_record_delayed", reason=str(exc))
                return
