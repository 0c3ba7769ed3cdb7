"""The worker: a process (or a part of one) that hosts instances.

It registers what it can run (unless a runner has launched it for what is registered, see `roles`), pulls run requests
as long as it has slots, claims each attempt, runs it, and routes what the engine tells it. One task per instance;
everything that many instances need now and then (claims sent again, requests kept alive, commits asked for) is one
sweep.

Invariants: a worker id is new at each start of a worker; it asks for no more requests than it has free slots;
a draining worker takes nothing; without a NATS connection for a whole lease it ends its attempts, because
another worker may have them by now. Order of leaving: stop intake, finish or release instances, flush the
journal writer, close the connections. Code that does not end although it was told to is not waited for: when there is
too much of it (`overdue`), or when it blocks the event loop (`watchdog`), the worker takes nothing more and asks for
another process in its place.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.pull import ConsumerLost, PulledMsg, PullLoop
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import RuntaraError, Unavailable
from runtara.protocol.ids import new_token
from runtara.protocol.limits import LEASE_SECONDS
from runtara.protocol.messages import ClaimAnswer, Claimed, Control, Heartbeat, RunRequest

from .blobs import ApiDoor, Blobs
from .claims import Claims, with_all_memos
from .connection import Connection, connect_bus
from .credentials import own_user
from .deliveries import HOLD_SECONDS, Deliveries
from .discovery import Code
from .heartbeat import BEAT_SECONDS, Heartbeats, Pulse, Residence
from .idle import IdleWatch
from .library import Library
from .link import Link
from .openings import Openings
from .outcomes import Outcomes
from .outlet import Commits, JournalOutlet
from .overdue import Overdue
from .resident import AnyWorkflow, Resident
from .roles import Registrar, Role
from .watchdog import Watchdog

log = logger("worker")

PULL_EXPIRES_SECONDS: Final = 2.0  # a stopped worker swallows deliveries for no longer than this
CONSUMER_RETRY_SECONDS: Final = 0.5
LEAVE_SECONDS: Final = 5.0  # after the grace, for last records to be acknowledged
FLUSH_SECONDS: Final = 2.0
LISTS_AFTER_LOSS: Final = 3
CROWDED: Final = 0.75  # of `max_resident`, from which on idle instances do not linger
STALL_SECONDS: Final = 1.0  # a main loop that was not heard for so long starts nothing before its claim is answered
_request_decoder = msgspec.json.Decoder(RunRequest)
_control_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


class Worker(Service):
    """Hosts the workflows of `code`. Enter it as a context manager; `failed()` raises what ended it.

    `on_overdue` is called, from any thread, if code here does not end although it was told to: only the end of the
    process can end it, so leave the worker, and end the process if that takes longer than `leave_seconds`.
    """

    def __init__(
        self, settings: Settings, code: Code, *, supervisor: int | None = None,
        role: Role | None = None, on_overdue: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._role = role or Registrar()
        self.id = own_user(settings, Kind.WORKER) or settings.worker or f"w-{new_token()}"
        super().__init__(f"worker {self.id}")
        self._settings = settings
        self._code = code
        self._supervisor = supervisor
        self._on_overdue = on_overdue
        self._workflows: dict[str, AnyWorkflow] = {workflow.name: workflow for workflow in code.workflows}
        self._residents: dict[tuple[str, int], Resident] = {}
        self._idle: dict[tuple[str, int], Resident] = {}  # in the order in which they became so
        self._loops: dict[str, PullLoop] = {}
        self._intakes: list[asyncio.Task[None]] = []
        self._consumers: dict[str, str] = {}
        self._stream = ""
        self._pulse = Pulse()
        self._deliveries = Deliveries()
        self._draining = self._has_abandoned = False
        self._connected_at = self._swept_at = 0.0
        self._stalled_at = -STALL_SECONDS
        self.ignored = 0

    @property
    def workflows(self) -> tuple[str, ...]:
        """The ids of what it hosts."""
        return tuple(self._workflows)

    @property
    def has_code(self) -> bool:
        """Code of instances runs here, or may: once the worker is closed, some that was not waited for."""
        return self._has_abandoned or bool(self._residents)

    @property
    def leave_seconds(self) -> float:
        """How long leaving it may take."""
        return self._settings.drain_seconds + LEAVE_SECONDS + FLUSH_SECONDS

    # life

    async def open(self) -> None:
        self._link = Link(self._supervisor, on_lost=self._on_supervisor_lost)
        self._stack.callback(self._link.close)
        settings = self._settings
        self._connection = await self.enter(
            await Connection.open(settings, kind=Kind.WORKER, user=self.id, name=f"runtara {self.id}", patience=None)
        )
        bus, subjects, tenant = self._connection.bus, self._connection.subjects, self._connection.tenant
        bus.on_reconnect.append(self._deliveries.reconnected)
        self._loop = asyncio.get_running_loop()
        self._left = asyncio.Event()
        self._writer = JournalWriter(
            bus, lambda partition: subjects.worker_reports(partition, tenant, self.id), on_fatal=self._on_fatal
        )
        self._stack.push_async_callback(self._writer.close)
        self._idle_watch = IdleWatch(self._loop)
        self._overdue = Overdue(self._be_replaced)
        self._claims = Claims(self._connection, self._writer, self.id)
        self._commits = Commits(self._connection)
        self._stack.push_async_callback(self._commits.close)
        self._outcomes = Outcomes(self._connection)
        self._openings, self._library = Openings(self._connection), Library(self._connection)
        self._stack.push_async_callback(self._outcomes.close)
        await self._claims.open()
        await self._commits.open()
        await bus.subscribe(subjects.control(tenant, self.id), self._on_control)
        await self.enter(self._heartbeats())
        await self._find_requests()
        self._connected_at = self._swept_at = self._loop.time()
        self.spawn(self._sweep(), "sweep")
        self.spawn(self._claims.acknowledge(), "acknowledge")
        self._link.ready(self.id, self._workflows)
        self._intakes = [self.spawn(self._intake(name), f"intake {name}", may_end=True) for name in self._consumers]

    async def drain(self) -> None:
        """Take nothing new, let steps in flight finish within the grace, suspend the rest, flush."""
        self._draining = True
        log.info("draining", worker=self.id, instances=len(self._residents))
        await self._stop_intake()
        await self._drain_residents(self._settings.drain_seconds)
        await self._drain_residents(LEAVE_SECONDS)
        for resident in list(self._residents.values()):
            log.warning("instance_abandoned", instance=resident.request.instance, attempt=resident.request.attempt)
            self._has_abandoned = True
            resident.abandon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._claims.release()
                await self._writer.flush()

    async def _stop_intake(self) -> None:
        for intake in self._intakes:
            intake.cancel()
        await asyncio.gather(*self._intakes, return_exceptions=True)

    async def _drain_residents(self, seconds: float) -> None:
        for resident in list(self._residents.values()):
            resident.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(resident.is_overdue for resident in self._residents.values()):
                    self._left.clear()
                    await self._left.wait()

    def _on_fatal(self, error: RuntaraError) -> None:
        """The journal is lost to us: nothing that runs here can be recorded any more."""
        self._stop_all(str(error))
        self.fail(error)

    def _be_replaced(self, what: str) -> None:
        """Take nothing more, and let another process have the rest. From any thread."""
        log.error("worker_replaced", worker=self.id, reason=what)
        self._draining = True
        self._link.replace()
        self._on_overdue()

    def _on_supervisor_lost(self) -> None:
        self.fail(Unavailable(reason="the supervisor of this worker is gone"))

    # what it can run

    async def _find_requests(self) -> None:
        reply = await self._role.find_requests(self._connection, self.id, self._code)
        self._consumers, self._stream = reply.consumers, reply.stream

    def _heartbeats(self) -> Heartbeats:
        settings, connection = self._settings, self._connection
        heartbeat = Heartbeat(
            worker=self.id, kind=self._role.kind, code_version=self._code.version, capacity=settings.concurrency
        )  # fmt: skip
        return Heartbeats(
            lambda: connect_bus(
                settings, connection.login, inbox=connection.inbox, name=f"runtara {self.id} heartbeats"
            ),
            connection.subjects.heartbeat(connection.tenant, self.id),
            self._pulse,
            heartbeat,
            on_failure=lambda error: self._loop.call_soon_threadsafe(self.fail, error),
            ear=Watchdog(
                connection.subjects.control(connection.tenant, self.id), self._pulse,
                hosts=self._hosts, blocker=self._blocker, on_blocked=self._be_replaced,
            ),
        )  # fmt: skip

    # what the heartbeats' thread looks at, at any moment

    def _hosts(self, claim: Residence) -> bool:
        resident = self._residents.get(claim[:2])
        return resident is not None and resident.claim is not None and resident.claim.nonce == claim[2]

    def _blocker(self) -> tuple[str, int] | None:
        """The attempt in whose code the event loop is."""
        task = asyncio.current_task(self._loop)
        owners = (key for key, resident in list(self._residents.items()) if task is not None and resident.owns(task))
        return next(owners, None)

    # taking

    def _credit(self) -> int:
        """How many requests one workflow's loop may have asked for: its share of the free slots."""
        free = min(self._settings.concurrency - self._active, self._settings.max_resident - len(self._residents))
        if free <= 0 or self._draining:
            return 0
        return max(1, free // len(self._consumers))

    @property
    def _active(self) -> int:
        """Instances that take up a slot: those that do not only wait."""
        return len(self._residents) - len(self._idle)

    async def _intake(self, name: str) -> None:
        while True:
            loop = PullLoop(
                self._connection.bus,
                stream=self._stream,
                consumer=self._consumers[name],
                credit=self._credit,
                expires=PULL_EXPIRES_SECONDS,
            )
            try:
                await self._take_from(name, loop)
            except ConsumerLost as exc:
                log.warning("consumer_lost", workflow=name, reason=str(exc))
            await asyncio.sleep(CONSUMER_RETRY_SECONDS)
            await self._find_requests()

    async def _take_from(self, name: str, loop: PullLoop) -> None:
        async with loop:
            self._loops[name] = loop
            try:
                while True:
                    for msg in await loop.take(self._settings.concurrency):
                        await self._take(msg)
            finally:
                del self._loops[name]
                for msg in await loop.drain():
                    await msg.nak()

    async def _take(self, msg: PulledMsg) -> None:
        try:
            request = _request_decoder.decode(msg.data)
        except msgspec.MsgspecError as exc:
            log.error("run_request_unreadable", subject=msg.subject, reason=str(exc))
            await msg.term()
            return
        self._deliveries.delivered(msg.store_time_us)
        version = request.options.definition
        workflow = self._workflows.get(request.workflow) if version is None else self._library.known(request)
        if workflow is None and version is not None and self._role.hosts_definitions:
            self.spawn(self._take_loaded(request, msg), f"load {request.workflow}@{version}", may_end=True)
        else:
            is_fresh = self._deliveries.is_first(msg.delivered, msg.store_time_us)
            await self._take_for(workflow, request, msg, is_fresh=is_fresh)

    async def _take_loaded(self, request: RunRequest, msg: PulledMsg) -> None:
        """In a task of its own: others need not wait. It may take so long that somebody else has the request, too."""
        with contextlib.suppress(Unavailable):  # then it comes again, since nobody has acknowledged it
            await self._take_for(await self._library.get(request), request, msg, is_fresh=False)

    async def _take_for(
        self, workflow: AnyWorkflow | None, request: RunRequest, msg: PulledMsg, *, is_fresh: bool
    ) -> None:
        key = (request.instance, request.attempt)
        if key in self._residents:
            if not self._claims.take_again(*key, msg):
                await msg.ack()
        elif workflow is None or request.tenant != self._connection.tenant:
            await msg.term()
        elif self._draining or self._active >= self._settings.concurrency:
            await msg.nak()
        elif self._deliveries.is_anothers(msg.delivered, msg.store_time_us):
            await msg.nak(HOLD_SECONDS)
        else:
            self._host(workflow, request, msg, is_fresh)

    def _host(self, workflow: AnyWorkflow, request: RunRequest, msg: PulledMsg, is_fresh: bool) -> None:
        resident = Resident(
            workflow, request, self._outlet, blobs=Blobs(ApiDoor(self._connection, request.instance), patient=True),
            history=self._history, watch=self._idle_watch, on_idle=self._on_idle, on_left=self._on_left,
            overdue=self._overdue, opener=self._openings,
        )  # fmt: skip
        self._residents[resident.key] = resident
        self._make_room()
        self._link.hosts(request.instance, request.attempt)
        claim = self._claims.take(
            request.instance, request.attempt, msg, lambda answer: self._on_answer(resident, answer)
        )  # fmt: skip
        resident.begin(claim, at_once=is_fresh and not self._stood_still())

    def _on_answer(self, resident: Resident, answer: ClaimAnswer) -> None:
        if isinstance(answer, Claimed):
            self._deliveries.answered(answer.now_us)
        resident.on_answer(answer)

    def _outlet(self, resident: Resident) -> JournalOutlet:
        partition = self._connection.partition(resident.request.instance)
        return JournalOutlet(
            self._connection, self._writer, self._commits, partition, lambda why: resident.stop("superseded", why)
        )  # fmt: skip

    async def _history(self, claimed: Claimed) -> Claimed:
        return await with_all_memos(self._connection, claimed)

    def _on_left(self, resident: Resident) -> None:
        self._residents.pop(resident.key, None)
        self._idle.pop(resident.key, None)
        if resident.claim is not None:
            self._claims.give_up(*resident.key, resident.claim.nonce)
        self._link.left(*resident.key)
        self._left.set()
        self._wake_intake()

    def _on_idle(self, resident: Resident, idle: bool) -> None:
        """It needs no slot while it only waits."""
        if idle:
            self._idle[resident.key] = resident
            self._wake_intake()
        else:
            self._idle.pop(resident.key, None)

    def _make_room(self) -> None:
        """When memory gets short, whoever has been idle for longest leaves."""
        if self._idle and len(self._residents) > self._settings.max_resident * CROWDED:
            next(iter(self._idle.values())).leave_if_idle()

    def _wake_intake(self) -> None:
        for loop in self._loops.values():
            loop.wake()

    # what it is told

    def _on_control(self, msg: Msg) -> None:
        try:
            control = _control_decoder.decode(msg.data)
        except msgspec.MsgspecError:
            self.ignored += 1
            return
        resident = self._residents.get((control.instance, control.attempt))
        if resident is None or not resident.on_control(control):
            self.ignored += 1

    # now and then

    async def _sweep(self) -> None:
        while True:
            self._swept_at, before = self._loop.time(), self._swept_at
            if self._swept_at - before > STALL_SECONDS:
                self._stalled_at = self._swept_at
            self._pulse.beat(self._hosted())
            self._watch_connection()
            await self._claims.sweep()
            self._commits.sweep()
            self._outcomes.sweep(list(self._residents.values()))
            self._link.flush()
            await asyncio.sleep(BEAT_SECONDS)

    def _stood_still(self) -> bool:
        """Whether this process was stopped or blocked lately: then what it has in hand may be anything but fresh."""
        now = self._loop.time()
        return now - self._swept_at > STALL_SECONDS or now - self._stalled_at < STALL_SECONDS

    def _hosted(self) -> Iterable[Residence]:
        for (instance, attempt), resident in self._residents.items():
            if resident.confirmed and resident.claim is not None:
                yield instance, attempt, resident.claim.nonce

    def _watch_connection(self) -> None:
        now = self._loop.time()
        if self._connection.bus.is_connected:
            self._connected_at = now
        elif now - self._connected_at > LEASE_SECONDS and self._residents:
            self._stop_all(f"no connection to NATS for {LEASE_SECONDS} s")
            self._pulse.want_lists(LISTS_AFTER_LOSS)

    def _stop_all(self, reason: str) -> None:
        log.warning("instances_stopped", count=len(self._residents), reason=reason)
        for resident in list(self._residents.values()):
            resident.stop("superseded", reason)
