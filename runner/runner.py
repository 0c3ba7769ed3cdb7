"""A runner: takes run requests of one kind, and launches a process or container for each.

It claims an attempt before it launches anything, with a one-time token, with which what it launched takes the claim
over; so whatever dies before it has spoken counts against the instance's budget. It lists what it launched in its
heartbeats as long as that runs: while it holds the claim this is its lease, and afterwards the engine answers
`superseded` once the attempt has ended otherwise, and the runner ends what still runs.

Invariants: a run request is acknowledged once the claim is in the journal; no more is pulled than there are free slots;
an end is told until the journal has it; a draining runner takes nothing. Order of leaving: stop intake, let what runs
go on for the grace, then ask it to hand over (pooled containers at once: they let steps finish by themselves), tell the
ends, flush the journal writer, close the connections.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.pull import ConsumerLost, PulledMsg, PullLoop
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import ConsumersRequest, InstanceView, RegisterReply, RegisterRequest
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import RuntaraError, Unavailable
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import new_token
from runtara.protocol.messages import ClaimAnswer, Control, Heartbeat, RunRequest, Superseded
from runtara.protocol.records import Exited, Image
from runtara.sdk.claims import Claims
from runtara.sdk.connection import Connection, connect_bus
from runtara.sdk.credentials import own_user
from runtara.sdk.heartbeat import BEAT_SECONDS, Heartbeats, Pulse

from . import issuing
from .job import Job
from .keeper import Keeper
from .launches import Ending, Launched, Launcher, Order
from .pooled import Pooled, PooledLauncher
from .pooled_ends import PooledEnds

log = logger("runner")

PULL_EXPIRES_SECONDS: Final = 2.0
FIND_WORK_SECONDS: Final = 3.0  # how soon a workflow that somebody registers is seen
RETRY_SECONDS: Final = 0.5
FLUSH_SECONDS: Final = 2.0
STOP_MARGIN_SECONDS: Final = 5.0  # beyond the grace that what is launched gives itself
ABANDONED_SECONDS: Final = 30.0
FIRST_LISTS: Final = 3  # heartbeats in a row that list what runs: what an earlier life had reserved is missing in them
_request_decoder = msgspec.json.Decoder(RunRequest)
_control_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


class Runner(Service):
    """Launches what `launcher` can, under the name `id`. Enter it as a context manager.

    `pooled` makes containers that host many instances, of images that want that; without it each instance gets its own.
    """

    def __init__(
        self, settings: Settings, launcher: Launcher, *, id: str | None = None, pooled: PooledLauncher | None = None
    ) -> None:
        self.id = own_user(settings, Kind.RUNNER) or id or f"r-{new_token()}"
        super().__init__(f"runner {self.id}")
        self._settings = settings
        self._launcher = launcher
        self._pooled = pooled
        self._keeper: Keeper | None = None
        self._grace = settings.drain_seconds + STOP_MARGIN_SECONDS
        self._jobs: dict[tuple[str, int], Job] = {}
        self._left = asyncio.Event()
        self._intakes: dict[str, asyncio.Task[None]] = {}
        self._loops: dict[str, PullLoop] = {}
        self._consumers: dict[str, str] = {}
        self._kept: tuple[str, ...] = ()
        self._stream = ""
        self._pulse = Pulse()
        self._draining = False
        self._lost = asyncio.Event()
        self.ignored = 0

    @property
    def workflows(self) -> tuple[str, ...]:
        """What it takes requests for now, or its pooled containers."""
        return (*self._consumers, *self._kept)

    @property
    def pooled(self) -> list[Pooled]:
        return self._keeper.containers if self._keeper is not None else []

    @property
    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    # life

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.enter(self._launcher)
        settings = self._settings
        self._connection = await self.enter(
            await Connection.open(
                settings, kind=Kind.RUNNER, user=self.id, name=f"runtara runner {self.id}", patience=None
            )
        )
        bus, subjects, tenant = self._connection.bus, self._connection.subjects, self._connection.tenant
        self._writer = JournalWriter(
            bus, lambda partition: subjects.runner(partition, tenant, self.id), on_fatal=self.fail
        )
        self._stack.push_async_callback(self._writer.close)
        self._claims = Claims(self._connection, self._writer, self.id, by="runner")
        await self._claims.open()
        await bus.subscribe(subjects.control(tenant, self.id), self._on_control)
        for launched in await self._launcher.left_behind():
            self._adopt(launched)
        if self._pooled is not None:
            self._keeper = await self.enter(self._keeper_of(self._pooled))
        self._beat()
        self._pulse.want_lists(FIRST_LISTS)
        await self.enter(self._heartbeats())
        await self._find_work()
        self.spawn(self._sweep(), "sweep")
        self.spawn(self._claims.acknowledge(), "acknowledge")
        self.spawn(self._keep_finding_work(), "find work")
        self.spawn(self._clear_away(), "clear away")

    async def drain(self) -> None:
        self._draining = True
        log.info("draining", runner=self.id, launched=len(self._jobs))
        for intake in self._intakes.values():
            intake.cancel()
        await asyncio.gather(*self._intakes.values(), return_exceptions=True)
        await asyncio.gather(self._drain_jobs(), *([self._keeper.drain()] if self._keeper is not None else []))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._claims.release()
                await self._writer.flush()

    async def _drain_jobs(self) -> None:
        await self._wait_for_jobs(self._settings.drain_seconds)
        for job in self.jobs:
            job.stop()
        await self._wait_for_jobs(self._grace + STOP_MARGIN_SECONDS)

    async def _wait_for_jobs(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._jobs:
                    self._left.clear()
                    await self._left.wait()

    def _heartbeats(self) -> Heartbeats:
        settings, kind, connection = self._settings, self._launcher.kind, self._connection
        name = f"runtara runner {self.id} heartbeats"
        return Heartbeats(
            lambda: connect_bus(settings, connection.login, inbox=connection.inbox, name=name),
            connection.subjects.heartbeat(connection.tenant, self.id),
            self._pulse,
            Heartbeat(worker=self.id, kind=kind, capacity=settings.slots),
            on_failure=lambda error: self._loop.call_soon_threadsafe(self.fail, error),
        )

    # where requests wait

    async def _find_work(self) -> None:
        while True:
            try:
                reply = await self._ask_for_work()
            except Unavailable as exc:
                log.warning("registration_delayed", reason=str(exc))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._take_from_these(reply)
                return

    async def _ask_for_work(self) -> RegisterReply:
        registrations, kind = self._launcher.registrations, self._launcher.kind
        if registrations is None:
            return await self._connection.call("consumers", ConsumersRequest(runner=self.id, kind=kind), RegisterReply)
        request = RegisterRequest(worker=self.id, workflows=registrations)
        return await self._connection.call("register", request, RegisterReply)

    async def _keep_finding_work(self) -> None:
        """Anew when a consumer is gone; and now and then, where others register what this runner launches."""
        wait = FIND_WORK_SECONDS if self._launcher.registrations is None else None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._lost.wait()
                    await asyncio.sleep(RETRY_SECONDS)
            self._lost.clear()
            await self._find_work()

    def _take_from_these(self, found: RegisterReply) -> None:
        if self._draining:
            return
        self._stream = found.stream
        kept = self._have_kept(found.images)
        consumers = {name: consumer for name, consumer in found.consumers.items() if name not in kept}
        for workflow in self._consumers.keys() - consumers.keys():
            self._intakes.pop(workflow).cancel()
        self._consumers = consumers
        for workflow in consumers:
            intake = self._intakes.get(workflow)
            if intake is None or intake.done():
                self._intakes[workflow] = self.spawn(self._intake(workflow), f"intake {workflow}", may_end=True)

    def _have_kept(self, images: Mapping[str, Image]) -> tuple[str, ...]:
        """The workflows whose requests pooled containers take."""
        if self._keeper is not None:
            pooled = {workflow: image for workflow, image in images.items() if image.isolation == "pool"}
            self._keeper.want(pooled)
            self._kept = tuple(pooled)
        return self._kept

    # taking

    def _credit(self) -> int:
        free = self._settings.slots - len(self._jobs)
        if free <= 0 or self._draining:
            return 0
        return max(1, free // max(1, len(self._consumers)))

    async def _intake(self, workflow: str) -> None:
        loop = PullLoop(
            self._connection.bus, stream=self._stream, consumer=self._consumers[workflow], credit=self._credit,
            expires=PULL_EXPIRES_SECONDS,
        )  # fmt: skip
        try:
            await self._take_from(workflow, loop)
        except ConsumerLost as exc:
            log.warning("consumer_lost", workflow=workflow, reason=str(exc))
            self._lost.set()

    async def _take_from(self, workflow: str, loop: PullLoop) -> None:
        async with loop:
            self._loops[workflow] = loop
            try:
                while True:
                    for msg in await loop.take(self._settings.slots):
                        await self._take(msg)
            finally:
                del self._loops[workflow]
                for msg in await loop.drain():
                    await msg.nak()

    async def _take(self, msg: PulledMsg) -> None:
        try:
            request = _request_decoder.decode(msg.data)
        except msgspec.MsgspecError as exc:
            log.error("run_request_unreadable", subject=msg.subject, reason=str(exc))
            await msg.term()
            return
        key = (request.instance, request.attempt)
        if key in self._jobs:
            if not self._claims.take_again(*key, msg):
                await msg.ack()
        elif request.tenant != self._connection.tenant:
            await msg.term()
        elif self._draining or len(self._jobs) >= self._settings.slots:
            await msg.nak()
        else:
            self._claim(request, msg)

    def _claim(self, request: RunRequest, msg: PulledMsg) -> None:
        token = new_token()
        claim = self._claims.take(request.instance, request.attempt, msg, self._on_answer, token=token)
        order = Order(
            tenant=request.tenant, instance=request.instance, workflow=request.workflow, attempt=request.attempt,
            nonce=claim.nonce, token=token, worker=f"i-{new_token()}", options=request.options,
        )  # fmt: skip
        job = Job(
            request.instance, request.attempt, claim.nonce, launch=lambda: self._launch(order),
            is_reserved=self._is_reserved, tell=self._tell, launch_seconds=self._settings.launch_seconds,
            grace=self._grace, runner=self.id,
        )  # fmt: skip
        self._jobs[job.key] = job

    def _on_answer(self, answer: ClaimAnswer) -> None:
        job = self._jobs.get((answer.instance, answer.attempt))
        if job is None or job.nonce != answer.nonce:
            return
        if isinstance(answer, Superseded):
            self._forget(job)
            return
        job.confirmed = True
        self._start(job)

    def _adopt(self, launched: Launched) -> None:
        """What an earlier life of ours launched is ours again; or we clear away what another left."""
        log.info("adopted", instance=launched.instance, attempt=launched.attempt)

        async def launch() -> Launched:
            return launched

        job = Job(
            launched.instance, launched.attempt, launched.nonce, launch=launch, is_reserved=self._is_reserved,
            tell=self._tell, launch_seconds=self._settings.launch_seconds, grace=self._grace,
            runner=launched.runner or self.id,
        )  # fmt: skip
        job.confirmed = job.runner == self.id  # others list what is theirs
        self._jobs[job.key] = job
        self._start(job)

    def _start(self, job: Job) -> None:
        task = self.spawn(job.run(), f"job {job.instance} {job.attempt}", may_end=True)
        task.add_done_callback(lambda _: self._forget(job))

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.key, None)
        self._claims.give_up(*job.key, job.nonce)
        self._left.set()
        for loop in self._loops.values():
            loop.wake()

    async def _clear_away(self) -> None:
        """What runners left that do not come back, and that has ended since: its end is told, and it is removed."""
        while True:
            await asyncio.sleep(ABANDONED_SECONDS)
            try:
                abandoned = await self._launcher.abandoned()
            except (RuntaraError, TimeoutError) as exc:
                log.debug("abandoned_unknown", reason=str(exc))
                continue
            for launched in abandoned:
                if (launched.instance, launched.attempt) not in self._jobs:
                    self._adopt(launched)

    # for the jobs

    async def _launch(self, order: Order) -> Launched:
        """With a credential of its own. Raises `LaunchFailed`."""
        within = self._settings.launch_seconds
        credential = await issuing.for_one(self._connection, order, within=within)
        return await self._launcher.launch(msgspec.structs.replace(order, credential=credential))

    async def _is_reserved(self, job: Job) -> bool:
        view = await self._connection.call("get", {}, InstanceView, instance=job.instance)
        return (view.attempt, view.worker) == (job.attempt, job.runner)

    async def _tell(self, job: Job, ending: Ending) -> None:
        record = Exited(
            instance=job.instance, attempt=job.attempt, worker=job.runner, reason=ending.reason, stderr=ending.stderr,
            memory_bytes=ending.memory_bytes, cpu_us=ending.cpu_us,
        )  # fmt: skip
        await self._writer.send(self._connection.partition(job.instance), encode_record(record))

    # for pooled containers

    def _keeper_of(self, launcher: PooledLauncher) -> Keeper:
        settings, connection, kind = self._settings, self._connection, self._launcher.kind
        return Keeper(
            launcher, connection.tenant, tell=PooledEnds(connection, self._writer).tell,
            revoke=lambda worker: issuing.give_back(connection, worker),
            credentials=lambda workflow, worker: issuing.for_pooled(
                connection, kind, workflow, worker, within=settings.launch_seconds
            ),
            ready_seconds=settings.launch_seconds, drain_seconds=settings.drain_seconds,
        )  # fmt: skip

    # what it is told

    def _on_control(self, msg: Msg) -> None:
        try:
            control = _control_decoder.decode(msg.data)
        except msgspec.MsgspecError:
            self.ignored += 1
            return
        job = self._jobs.get((control.instance, control.attempt))
        if job is None or job.nonce != control.nonce or not isinstance(control, Superseded):
            self.ignored += 1
        else:
            job.stop()

    # now and then

    async def _sweep(self) -> None:
        while True:
            self._beat()
            await self._claims.sweep()
            await asyncio.sleep(BEAT_SECONDS)

    def _beat(self) -> None:
        self._pulse.beat([(*job.key, job.nonce) for job in self._jobs.values() if job.confirmed])
