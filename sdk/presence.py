"""What a script is to the platform while it speaks for an instance: a connection, a claim, heartbeats, and an ear.

Invariants: it reports as its instance, so a script that was killed can be started again at once; of two that run at
once the later one wins, and the other is `stopped`. What it is told that names another claim is not for it.
"""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from typing import Final, Protocol

import msgspec
from nats.aio.msg import Msg

from runtara.infra.clock import JournalClock
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import InstanceView
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import IllegalTransition, JournalLost, PlatformUnreachable, Refused, RuntaraError
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import new_nonce, new_token
from runtara.protocol.messages import (
    CancelControl,
    ClaimAnswer,
    Claimed,
    Control,
    Heartbeat,
    Memo,
    PauseControl,
    Resolved,
    ResumeControl,
    Status,
    Superseded,
)
from runtara.protocol.records import Registered

from .blobs import ApiDoor, Blobs
from .claims import with_all_memos
from .connection import Connection, connect_bus
from .credentials import own_user
from .heartbeat import BEAT_SECONDS, Heartbeats, Pulse
from .outcomes import Outcomes
from .outlet import Commits, JournalOutlet
from .ports import Clock, Outlet

KIND: Final = "external"
CONNECT_SECONDS: Final = 10.0
CLAIM_RESEND_SECONDS: Final = 1.0
_claim_decoder = msgspec.json.Decoder(list[ClaimAnswer])
_control_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


class Listener(Protocol):
    """Whom the script's presence is of."""

    def resolved(self, memo: Memo) -> None: ...
    def waits_longer_than(self, seconds: float) -> bool: ...
    def on_told(self) -> None: ...


class Presence:
    """Of one instance. `open` connects and claims; `stopped` says why it can do nothing (more), None while it can."""

    def __init__(self, settings: Settings, instance: str, listener: Listener) -> None:
        self.id = instance
        self.worker = own_user(settings, Kind.CONTAINER) or f"s-{new_token()}"
        self.nonce = new_nonce()
        self.attempt = 0
        self.version = 0
        self.pause = False
        self.cancel = False
        self.clock: Clock = JournalClock()
        self.outlet: Outlet
        self.blobs: Blobs
        self.stopped: str | None = "it is not registered"
        self._settings = settings
        self._listener = listener
        self._pulse = Pulse()
        self._stack = AsyncExitStack()
        self._claim: asyncio.Future[ClaimAnswer] | None = None
        self.is_open = False  # it never was

    async def open(self, record: Registered) -> Claimed:
        """Connect and claim by `record`. Raises `IllegalTransition`, `PlatformUnreachable`, `Refused`."""
        try:
            await self._open()
            self.is_open = True
            input = await self.blobs.carried(record.input, key="input")
            claimed = await self._claimed(msgspec.structs.replace(record, input=input.text, blob=input.blob))
        except BaseException:
            await self.close()
            raise
        self.attempt, self.version = claimed.attempt, claimed.version
        self.pause, self.cancel = claimed.pause, claimed.cancel or claimed.cancelling
        self.stopped = None
        return claimed

    async def close(self) -> None:
        await self._stack.aclose()

    def stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._listener.on_told()

    async def wait(self, news: "asyncio.Future[None]") -> None:
        """Until `news` is there."""
        await news

    def resolved(self, memo: Memo) -> None:
        self._listener.resolved(memo)

    def waits_longer_than(self, seconds: float) -> bool:
        return self.stopped is None and self._listener.waits_longer_than(seconds)

    async def _open(self) -> None:
        connection = await Connection.open(
            self._settings,
            kind=Kind.CONTAINER,
            user=self.worker,
            name=f"runtara {self.id}",
            patience=CONNECT_SECONDS,
            instance=self.id,
        )
        self._connection = await self._stack.enter_async_context(connection)
        bus, subjects, tenant = connection.bus, connection.subjects, connection.tenant
        self._partition = connection.partition(self.id)
        self._writer = JournalWriter(
            bus, lambda partition: subjects.instance_reports(partition, tenant, self.id), on_fatal=self._on_fatal
        )
        self._stack.push_async_callback(self._writer.close)
        self._commits = Commits(connection)
        self._stack.push_async_callback(self._commits.close)
        self._outcomes = Outcomes(connection)
        self._stack.push_async_callback(self._outcomes.close)
        self.blobs = Blobs(ApiDoor(connection, self.id), patient=True)
        self.outlet = JournalOutlet(connection, self._writer, self._commits, self._partition, self.stop)
        self._claim = asyncio.get_running_loop().create_future()
        await self._commits.open()
        await bus.subscribe(f"{connection.inbox}.claims", self._on_answer)
        await bus.subscribe(subjects.control(tenant, self.worker), self._on_control)
        sweeper = asyncio.create_task(self._sweep(), name=f"instance {self.id}")
        self._stack.push_async_callback(_cancelled, sweeper)
        await self._stack.enter_async_context(self._heartbeats(connection))

    def _heartbeats(self, connection: Connection) -> Heartbeats:
        loop = asyncio.get_running_loop()
        return Heartbeats(
            lambda: connect_bus(
                self._settings, connection.login, inbox=connection.inbox, name=f"runtara {self.id} heartbeats"
            ),
            connection.subjects.heartbeat(connection.tenant, self.worker),
            self._pulse,
            Heartbeat(worker=self.worker, kind=KIND, capacity=1),
            on_failure=lambda error: loop.call_soon_threadsafe(self.stop, f"its heartbeats failed: {error}"),
        )

    async def _claimed(self, record: Registered) -> Claimed:
        answer = await self._answer(record)
        if isinstance(answer, Claimed):
            return await self._whole(answer)
        status = await self._status()
        if status.is_terminal:
            raise IllegalTransition(command="register", instance=self.id, status=str(status))
        raise Refused(reason=f"{self.id} cannot be registered: {answer.reason or status}")

    async def _answer(self, record: Registered) -> ClaimAnswer:
        """Send the claim, every second, until it is answered."""
        claim = self._claim
        assert claim is not None
        encoded = encode_record(msgspec.structs.replace(record, reply=f"{self._connection.inbox}.claims"))
        deadline = time.monotonic() + CONNECT_SECONDS
        while not claim.done():
            if time.monotonic() > deadline:
                raise PlatformUnreachable(reason=f"the registration of {self.id} was not answered")
            await asyncio.wait({self._writer.send(self._partition, encoded)}, timeout=CLAIM_RESEND_SECONDS)
            await asyncio.wait({claim}, timeout=CLAIM_RESEND_SECONDS)
        return claim.result()

    async def _whole(self, claimed: Claimed) -> Claimed:
        return await with_all_memos(self._connection, claimed)

    async def _status(self) -> Status:
        return (await self._connection.call("get", {}, InstanceView, instance=self.id)).status

    def _on_answer(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            for answer in _claim_decoder.decode(msg.data):
                if self._claim is not None and not self._claim.done() and answer.nonce == self.nonce:
                    self._claim.set_result(answer)

    def _on_control(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            self._hear(_control_decoder.decode(msg.data))

    def _hear(self, control: Control) -> None:
        if (control.instance, control.attempt, control.nonce) != (self.id, self.attempt, self.nonce):
            return
        match control:
            case Superseded():
                self.stop(control.reason or "another process runs it now")
            case CancelControl():
                self._ask(pause=self.pause, cancel=True)
            case PauseControl():
                self._ask(pause=True, cancel=self.cancel)
            case ResumeControl():
                self._ask(pause=False, cancel=self.cancel)
            case Resolved():
                self._listener.resolved(control.memo)

    def _ask(self, *, pause: bool, cancel: bool) -> None:
        if (pause, cancel) != (self.pause, self.cancel):  # it is said again and again
            self.pause, self.cancel = pause, cancel
            self._listener.on_told()

    def _on_fatal(self, error: RuntaraError) -> None:
        lost = isinstance(error, JournalLost)
        self.stop(f"the journal lost records: {error}" if lost else str(error))

    async def _sweep(self) -> None:
        while True:
            self._pulse.beat([(self.id, self.attempt, self.nonce)] if self.stopped is None else [])
            self._commits.sweep()
            self._outcomes.sweep([self])
            await asyncio.sleep(BEAT_SECONDS)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
