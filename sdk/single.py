"""One instance in a process of its own: launched by a runner for one attempt, gone when that has ended.

It takes the runner's claim over with the token that it was launched with, runs the attempt, and has ended when the
journal has the last record. A long sleep is such an end: the wake launches another process.

Invariants: it reports as its instance; its nonce is drawn here, after the launch, so of two that were launched alike
one is told that it is superseded; `check_told` raises unless the journal has the attempt's last record.
Order of leaving: hand the instance over, flush the journal writer, close the connections.
"""

import asyncio
import contextlib
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidSetting, Refused, RuntaraError
from runtara.protocol.ids import new_token
from runtara.protocol.limits import LEASE_SECONDS
from runtara.protocol.messages import ClaimAnswer, Claimed, Control, Heartbeat, RunRequest, Superseded

from .blobs import ApiDoor, Blobs
from .claims import Claims, with_all_memos
from .connection import Connection, connect_bus
from .discovery import Code
from .heartbeat import BEAT_SECONDS, Heartbeats, Pulse
from .idle import IdleWatch
from .openings import Openings
from .outcomes import Outcomes
from .outlet import Commits, JournalOutlet
from .resident import Resident

log = logger("worker")

LEAVE_SECONDS: Final = 5.0  # after the grace, for the last record to be acknowledged
FLUSH_SECONDS: Final = 2.0
_control_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


class Single(Service):
    """Hosts the instance that the settings name, with the workflows of `code`. Made inside the running loop."""

    def __init__(self, settings: Settings, code: Code, *, kind: str = "process") -> None:
        if settings.instance is None or settings.attempt is None:
            raise InvalidSetting(name="instance", value=settings.instance, reason="a runner sets it, and the attempt")
        self.instance, self.attempt = settings.instance, settings.attempt
        self.id = settings.worker or f"i-{new_token()}"
        super().__init__(f"instance {self.instance}")
        self._settings = settings
        self._kind = kind
        self._code = code
        self._workflows = {workflow.name: workflow for workflow in code.workflows}
        self._pulse = Pulse()
        self._resident: Resident | None = None
        self._connected_at = 0.0
        self._why = "its claim was not answered"
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[None] = self._loop.create_future()

    async def open(self) -> None:
        settings = self._settings
        self._connection = await self.enter(
            await Connection.open(
                settings,
                kind=Kind.CONTAINER,
                user=self.id,
                instance=self.instance,
                name=f"runtara {self.instance}",
                patience=None,
            )
        )
        bus, subjects, tenant = self._connection.bus, self._connection.subjects, self._connection.tenant
        self._partition = self._connection.partition(self.instance)
        self._writer = JournalWriter(
            bus, lambda partition: subjects.instance_reports(partition, tenant, self.instance), on_fatal=self._on_fatal
        )
        self._stack.push_async_callback(self._writer.close)
        self._idle_watch = IdleWatch(self._loop)
        self._claims = Claims(self._connection, self._writer, self.id)
        self._commits = Commits(self._connection)
        self._stack.push_async_callback(self._commits.close)
        self._outcomes = Outcomes(self._connection)
        self._openings = Openings(self._connection)
        self._stack.push_async_callback(self._outcomes.close)
        await self._claims.open()
        await self._commits.open()
        await bus.subscribe(subjects.control(tenant, self.id), self._on_control)
        self._claim = self._claims.take(self.instance, self.attempt, None, self._on_answer, token=settings.token)
        await self.enter(self._heartbeats())
        self._connected_at = self._loop.time()
        self.spawn(self._sweep(), "sweep")

    async def ended(self) -> None:
        """Until the attempt has ended. Raises what this service failed with."""
        failed: asyncio.Future[None] = asyncio.ensure_future(self.failed())
        try:
            await asyncio.wait({failed, self._end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        if failed.done():
            failed.result()

    def check_told(self) -> None:
        """Once this is closed. Raises why the end of the attempt was not told, if it was not."""
        if not self._end.done():
            self._leave(told=False)
        self._end.result()

    async def drain(self) -> None:
        """Hand the instance over, unless it has ended."""
        for seconds in (self._settings.drain_seconds, LEAVE_SECONDS):
            resident = self._resident
            if self._end.done() or resident is None:
                break
            resident.drain()
            await asyncio.wait({self._end}, timeout=seconds)
        if not self._end.done():
            self._why = f"it was told to stop, and could not hand over; before that: {self._why}"
            self._leave(told=False)
            if self._resident is not None:
                log.warning("instance_abandoned", instance=self.instance, attempt=self.attempt)
                self._resident.abandon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._writer.flush()

    def _heartbeats(self) -> Heartbeats:
        settings, connection = self._settings, self._connection
        name = f"runtara {self.instance} heartbeats"
        return Heartbeats(
            lambda: connect_bus(settings, connection.login, inbox=connection.inbox, name=name),
            connection.subjects.heartbeat(connection.tenant, self.id),
            self._pulse,
            Heartbeat(worker=self.id, kind=self._kind, code_version=self._code.version, capacity=1),
            on_failure=lambda error: self._loop.call_soon_threadsafe(self.fail, error),
        )

    # the attempt

    def _on_answer(self, answer: ClaimAnswer) -> None:
        if isinstance(answer, Superseded):
            self._why = answer.reason
            self._leave(told=False)
            return
        workflow = self._workflows.get(answer.workflow)
        if workflow is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            self._fail(Refused(reason=f"this code has no workflow {answer.workflow!r}; it has: {known}"))
            return
        request = RunRequest(
            tenant=self._connection.tenant, instance=self.instance, workflow=answer.workflow, attempt=answer.attempt
        )
        self._resident = Resident(
            workflow, request, self._outlet, blobs=Blobs(ApiDoor(self._connection, self.instance), patient=True),
            history=self._history, watch=self._idle_watch, on_idle=lambda resident, idle: None, on_left=self._on_left,
            opener=self._openings,
        )  # fmt: skip
        self._resident.begin(self._claim, at_once=False)
        self._resident.on_answer(answer)

    def _outlet(self, resident: Resident) -> JournalOutlet:
        return JournalOutlet(self._connection, self._writer, self._commits, self._partition, self._supersede)

    async def _history(self, claimed: Claimed) -> Claimed:
        return await with_all_memos(self._connection, claimed)

    def _on_left(self, resident: Resident) -> None:
        execution = resident.execution
        self._leave(told=execution is not None and execution.is_told)

    def _leave(self, *, told: bool) -> None:
        if told and not self._end.done():
            self._end.set_result(None)
        self._fail(Refused(reason=f"attempt {self.attempt} of {self.instance} has no end of its own: {self._why}"))

    def _fail(self, error: RuntaraError) -> None:
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # whoever awaits it sees it

    # what it is told

    def _on_control(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            control = _control_decoder.decode(msg.data)
            if control.instance == self.instance and self._resident is not None:
                if isinstance(control, Superseded):
                    self._why = control.reason
                self._resident.on_control(control)

    def _supersede(self, reason: str) -> None:
        self._why = reason
        if self._resident is not None:
            self._resident.stop("superseded", reason)

    def _on_fatal(self, error: RuntaraError) -> None:
        self._supersede(str(error))
        self.fail(error)

    # now and then

    async def _sweep(self) -> None:
        while True:
            resident, now = self._resident, self._loop.time()
            hosted = resident is not None and resident.confirmed and not self._end.done()
            self._pulse.beat([(self.instance, self.attempt, self._claim.nonce)] if hosted else [])
            if self._connection.bus.is_connected:
                self._connected_at = now
            elif now - self._connected_at > LEASE_SECONDS:
                self._supersede(f"no connection to NATS for {LEASE_SECONDS} s")
            await self._claims.sweep()
            self._commits.sweep()
            self._outcomes.sweep([resident] if resident is not None else [])
            await asyncio.sleep(BEAT_SECONDS)
