"""The low-level way in: any script becomes a durable instance by saying what it does.

    instance = Instance.local("order-batch-001", tenant="tenant-1")
    await instance.register(input={"orders": 3})
    for n, order in enumerate(orders):
        saved = await instance.checkpoint(f"order-{n}", {"order": order})
        if not saved.existing:
            process(order)
    await instance.completed()

The same script started again goes on where it was: keys that are recorded answer `existing`. Nobody starts it
but whoever started it the first time; of two that run at once the later one wins.

Invariants: it reports as its instance, so a script that was killed can be started again at once; a state is
committed by the engine before `checkpoint` returns, hence what follows a new checkpoint runs at most once;
after its last record, or when another process has taken over, every call raises `Stopped`.
"""

import asyncio
import contextlib
import hashlib
import re
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import orjson
from msgspec import Raw
from nats.aio.msg import Msg

from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.infra.writer import JournalWriter
from runtara.protocol.errors import (
    DuplicateKey,
    IllegalTransition,
    InvalidSetting,
    JournalLost,
    PlatformUnreachable,
    Refused,
    RuntaraError,
    Stopped,
    WireError,
)
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import check_id, check_key, new_nonce, new_token
from runtara.protocol.messages import (
    CancelControl,
    ClaimAnswer,
    Claimed,
    Control,
    Heartbeat,
    InstanceView,
    Memo,
    PauseControl,
    ResumeControl,
    Superseded,
)
from runtara.protocol.records import (
    Cancelled,
    Checkpointed,
    Completed,
    Custom,
    Failed,
    Options,
    Registered,
    Report,
    Suspended,
)

from .claims import with_all_memos
from .connection import Connection, connect_bus
from .failures import describe
from .heartbeat import BEAT_SECONDS, Heartbeats, Pulse
from .outlet import Commits, JournalOutlet
from .values import encode

log = logger("instance")

KIND: Final = "external"
CONNECT_SECONDS: Final = 10.0
CLAIM_RESEND_SECONDS: Final = 1.0
_claim_decoder = msgspec.json.Decoder(list[ClaimAnswer])
_control_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
R = TypeVar("R", bound=Report)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `checkpoint`. `state` is what is recorded: by this call or, if `existing`, by an earlier run."""

    existing: bool
    state: Any
    should_pause: bool = False
    should_cancel: bool = False


class _Recorded(msgspec.Struct):
    value: Raw


class Instance:
    """One instance, spoken for by this process. Make it with `local` or `connect`; `register` begins."""

    def __init__(self, settings: Settings, instance: str, *, workflow: str | None = None) -> None:
        self._id = check_id(instance, "instance")
        self._workflow = check_id(workflow or _script_name(), "workflow")
        self._settings = settings
        self._worker = f"s-{new_token()}"
        self._nonce = new_nonce()
        self._attempt = 0
        self._seq = 0
        self._memos: dict[str, Memo] = {}
        self._used: set[str] = set()
        self._pause = False
        self._cancel = False
        self._stopped: str | None = "it is not registered"
        self._pulse = Pulse()
        self._stack = AsyncExitStack()
        self._claim: asyncio.Future[ClaimAnswer] | None = None

    @classmethod
    def connect(cls, settings: Settings | None = None, *, workflow: str | None = None) -> "Instance":
        """The instance that `RUNTARA_INSTANCE` names, on the platform that `RUNTARA_*` name."""
        settings = settings or Settings.load()
        if settings.instance is None:
            raise InvalidSetting(name="instance", value=None, reason="set RUNTARA_INSTANCE, or use Instance.local(id)")
        return cls(settings, settings.instance, workflow=workflow)

    @classmethod
    def local(
        cls, instance: str, *, tenant: str | None = None, workflow: str | None = None, settings: Settings | None = None
    ) -> "Instance":
        """An instance on the platform of this directory (`runtara dev`) or of `RUNTARA_*`.

        `workflow` is what lists show it as; by default the script's name.
        """
        settings = settings or Settings.load()
        return cls(replace(settings, tenant=tenant) if tenant else settings, instance, workflow=workflow)

    async def __aenter__(self) -> "Instance":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def id(self) -> str:
        return self._id

    @property
    def tenant(self) -> str:
        return self._settings.tenant

    # life

    async def register(self, input: object = None, *, labels: dict[str, str] | None = None) -> None:
        """Create the instance, or go on with it as its next attempt.

        `input` (an object of named values) counts when the instance is created. Raises `IllegalTransition` if it
        has ended, `PlatformUnreachable` if nobody answers.
        """
        if self._claim is not None:
            raise IllegalTransition(command="register", instance=self.id, status="registered already")
        record = Registered(
            instance=self.id,
            workflow=self._workflow,
            worker=self._worker,
            nonce=self._nonce,
            input=Raw(encode({} if input is None else input, key="input")),
            options=Options(runner=KIND),
            labels=labels or {},
        )
        try:
            await self._open()
            self._begin(await with_all_memos(self._connection, await self._claimed(record)))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave without a last record: for the platform this process is gone."""
        self._stop("it was closed")
        await self._stack.aclose()

    async def completed(self, result: object = None) -> None:
        """The end, with a result."""
        await self._end(Completed, result=Raw(encode(result, key="result")))

    async def failed(self, error: BaseException | str) -> None:
        """The end, with an error; `retry` of the instance makes it possible to run the script again."""
        wire = WireError(code="Failed", message=error) if isinstance(error, str) else describe(error)
        await self._end(Failed, error=wire)

    async def cancelled(self, reason: str | None = None) -> None:
        """The end that `should_cancel` asked for."""
        await self._end(Cancelled, reason=reason)

    async def suspended(self) -> None:
        """Leave for now: because a pause was asked for, or of the script's own accord; started again it goes on."""
        await self._end(Suspended, reason="pause" if self._pause else "self")

    # operations

    async def checkpoint(self, key: str, state: object) -> Checkpoint:
        """Record `state` under `key`, unless an earlier run did. Returns once the engine has committed it.

        Raises `DuplicateKey` if this run used the key before, `StateTooLarge`, `StateNotRepresentable`.
        """
        self._use(key)
        memo = self._memos.get(key)
        if memo is not None:
            value = orjson.loads(bytes(msgspec.json.decode(memo.data, type=_Recorded).value))
            return self._saved(existing=True, state=value)
        data = encode(state, key=key)
        report = self._report(Checkpointed, key=key, data=Raw(b'{"kind":"checkpoint","value":' + data + b"}"))
        await self._committed(report)
        return self._saved(existing=False, state=orjson.loads(data))

    async def emit(self, name: str, data: object = None, *, key: str | None = None) -> None:
        """Record an event of the script's own, once: a run that is started again does not repeat it.

        Its key is made from name and data unless given.
        """
        check_id(name, "event")
        text = encode(data, key=name)
        key = key or self._emit_key(name, text)
        self._use(key)
        if key not in self._memos:
            await self._stored(self._report(Custom, key=key, name=name, data=Raw(text)))

    @property
    def should_pause(self) -> bool:
        """Somebody asked to pause: call `suspended()` at the next good place."""
        return self._pause

    @property
    def should_cancel(self) -> bool:
        """Somebody asked to cancel: clean up and call `cancelled()`."""
        return self._cancel

    # inside

    async def _open(self) -> None:
        settings = self._settings
        connection = await Connection.open(
            settings, user=self._worker, name=f"runtara {self.id}", patience=CONNECT_SECONDS
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
        self._outlet = JournalOutlet(connection, self._writer, self._commits, self._partition, self._stop)
        self._claim = asyncio.get_running_loop().create_future()
        await self._commits.open()
        await bus.subscribe(f"{connection.inbox}.claims", self._on_answer)
        await bus.subscribe(subjects.control(tenant, self._worker), self._on_control)
        sweeper = asyncio.create_task(self._sweep(), name=f"instance {self.id}")
        self._stack.push_async_callback(_cancelled, sweeper)
        await self._stack.enter_async_context(self._heartbeats(connection))

    def _heartbeats(self, connection: Connection) -> Heartbeats:
        settings = self._settings
        loop = asyncio.get_running_loop()
        return Heartbeats(
            lambda: connect_bus(settings, user=f"{self._worker}-h", name=f"runtara {self.id} heartbeats"),
            connection.subjects.heartbeat(connection.tenant, self._worker),
            self._pulse,
            Heartbeat(worker=self._worker, kind=KIND, capacity=1),
            on_failure=lambda error: loop.call_soon_threadsafe(self._stop, f"its heartbeats failed: {error}"),
        )

    async def _claimed(self, record: Registered) -> Claimed:
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
        answer = claim.result()
        if isinstance(answer, Claimed):
            return answer
        view = await self._connection.call("get", {}, InstanceView, instance=self.id)
        if view.status.is_terminal:
            raise IllegalTransition(command="register", instance=self.id, status=str(view.status))
        raise Refused(reason=f"{self.id} cannot be registered: {answer.reason or view.status}")

    def _begin(self, claimed: Claimed) -> None:
        self._attempt = claimed.attempt
        for memo in claimed.memos:
            self._memos.setdefault(memo.key, memo)
        self._pause, self._cancel = claimed.pause, claimed.cancel or claimed.cancelling
        self._stopped = None

    def _on_answer(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            for answer in _claim_decoder.decode(msg.data):
                if self._claim is not None and not self._claim.done() and answer.nonce == self._nonce:
                    self._claim.set_result(answer)

    def _on_control(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            control = _control_decoder.decode(msg.data)
            if (control.instance, control.attempt, control.nonce) != (self.id, self._attempt, self._nonce):
                return
            match control:
                case Superseded():
                    self._stop(control.reason or "another process runs it now")
                case CancelControl():
                    self._cancel = True
                case PauseControl():
                    self._pause = True
                case ResumeControl():
                    self._pause = False

    def _on_fatal(self, error: RuntaraError) -> None:
        lost = isinstance(error, JournalLost)
        self._stop(f"the journal lost records: {error}" if lost else str(error))

    def _stop(self, reason: str) -> None:
        if self._stopped is None:
            self._stopped = reason

    async def _sweep(self) -> None:
        while True:
            self._pulse.beat([(self.id, self._attempt, self._nonce)] if self._stopped is None else [])
            self._commits.sweep()
            await asyncio.sleep(BEAT_SECONDS)

    def _check(self) -> None:
        if self._stopped is not None:
            raise Stopped(f"{self.id} cannot go on: {self._stopped}")

    def _use(self, key: str) -> None:
        self._check()
        if check_key(key) in self._used:
            raise DuplicateKey(key=key)
        self._used.add(key)

    def _emit_key(self, name: str, data: bytes) -> str:
        base = f"{name}~{hashlib.blake2b(data, digest_size=4).hexdigest()}"
        key, n = base, 1
        while key in self._used:
            n += 1
            key = f"{base}#{n}"
        return key

    def _saved(self, *, existing: bool, state: Any) -> Checkpoint:
        return Checkpoint(existing=existing, state=state, should_pause=self._pause, should_cancel=self._cancel)

    def _report(self, kind: type[R], **fields: object) -> R:
        self._seq += 1
        claim = {"instance": self.id, "attempt": self._attempt, "nonce": self._nonce, "seq": self._seq}
        return kind(**claim, at=time.time_ns() // 1_000, **fields)  # type: ignore[arg-type]  # `fields` are those of `kind`

    async def _committed(self, report: Report) -> None:
        try:
            await self._outlet.send_committed(report)
        except RuntaraError as exc:
            self._stop(str(exc))
            raise Stopped(str(exc)) from exc

    async def _stored(self, report: Report) -> None:
        try:
            await self._outlet.send(report)
        except RuntaraError as exc:
            self._stop(str(exc))
            raise Stopped(str(exc)) from exc

    async def _end(self, kind: type[R], **fields: object) -> None:
        self._check()
        report = self._report(kind, **fields)
        self._stopped = f"its last record was {kind.__name__.lower()}"
        await self._stored(report)
        await self._stack.aclose()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _script_name() -> str:
    """What the script is called, as an id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(sys.argv[0]).stem).strip("-") or "script"
