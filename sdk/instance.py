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

Invariants: a state is committed by the engine before `checkpoint` returns, hence what follows a new checkpoint runs at
most once; a wait has the outcome that the engine gives it, and goes on with its deadline when the script is started
again; what people ask for ends a wait early, once; after its last record, or when another process has taken over, every
call raises `Stopped`.
"""

import asyncio
import hashlib
import re
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import msgspec
import orjson
from msgspec import Raw

from runtara.infra.settings import Settings
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import (
    BadInput,
    IllegalTransition,
    InvalidSetting,
    KeyMismatch,
    RuntaraError,
    SignalTimeout,
    Stopped,
    WireError,
)
from runtara.protocol.events import SleepStarted
from runtara.protocol.ids import check_id, check_key
from runtara.protocol.messages import Memo
from runtara.protocol.records import (
    Cancelled,
    Checkpointed,
    Completed,
    Custom,
    Failed,
    Options,
    Parked,
    Registered,
    Report,
    Suspended,
    Unparked,
)

from .failures import describe
from .keys import Keys
from .memos import SLEPT, Memos, Outcome, Recorded, Waited
from .operations import outcome_data
from .presence import KIND, Presence
from .starts import checked_labels
from .values import encode
from .waits import duration_text, key_and

R = TypeVar("R", bound=Report)
_MICROSECOND: Final = timedelta(microseconds=1)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an operation. `state` is what is recorded: by this call or, if `existing`, by an earlier run.

    Of a wait for a signal it is the signal's data. `should_pause` and `should_cancel` are what people ask for by now.
    `ended_early`: the wait is not over, it was left so that you hear of it; the same call goes on with it, in this run
    or in the next.
    """

    existing: bool
    state: Any
    should_pause: bool = False
    should_cancel: bool = False
    ended_early: bool = False


class Instance:
    """One instance, spoken for by this process. Make it with `local` or `connect`; `register` begins."""

    def __init__(self, settings: Settings, instance: str, *, workflow: str | None = None) -> None:
        self._id = check_id(instance, "instance")
        self._workflow = check_id(workflow or _script_name(), "workflow")
        self._settings = settings
        self._presence = self._made_present()
        self._seq = 0
        self._memos = Memos()
        self._keys = Keys(None)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._waits_since = 0.0
        self._begun: dict[str, float | None] = {}  # waits that this run has left open, and when they are due
        self._told_pause = self._told_cancel = False  # by a wait that ended early

    def _made_present(self) -> Presence:
        """What it speaks through; its twin in memory has another."""
        return Presence(self._settings, self._id, self)

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
        if self._presence.is_open:
            raise IllegalTransition(command="register", instance=self.id, status="registered already")
        record = Registered(
            instance=self.id,
            workflow=self._workflow,
            worker=self._presence.worker,
            nonce=self._presence.nonce,
            input=Raw(encode({} if input is None else input, key="input")),
            options=Options(runner=KIND),
            labels=checked_labels(labels),
        )
        claimed = await self._presence.open(record)
        self._memos = Memos(claimed.memos, claimed.now_us, self._presence.clock)

    async def close(self) -> None:
        """Leave without a last record: for the platform this process is gone."""
        self._presence.stop("it was closed")
        await self._presence.close()

    async def completed(self, result: object = None) -> None:
        """The end, with a result."""
        self._check()
        carried = await self._presence.blobs.carried(encode(result, key="result"), key="result")
        await self._end(Completed, result=carried.text, blob=carried.blob)

    async def failed(self, error: BaseException | str) -> None:
        """The end, with an error; `retry` of the instance makes it possible to run the script again."""
        wire = WireError(code="Failed", message=error) if isinstance(error, str) else describe(error)
        await self._end(Failed, error=wire)

    async def cancelled(self, reason: str | None = None) -> None:
        """The end that `should_cancel` asked for."""
        await self._end(Cancelled, reason=reason)

    async def suspended(self) -> None:
        """Leave for now: because a pause was asked for, or of the script's own accord; started again it goes on."""
        await self._end(Suspended, reason="pause" if self._presence.pause else "self")

    # operations

    async def checkpoint(self, key: str, state: object) -> Checkpoint:
        """Record `state` under `key`, unless an earlier run did. Returns once the engine has committed it.

        Raises `DuplicateKey` if this run used the key before, `StateTooLarge`, `StateNotRepresentable`.
        """
        self._use(key)
        outcome = self._memos.answer(key)
        if outcome is not None:
            if not isinstance(outcome, Recorded):
                raise KeyMismatch(key=key, reason="it was not recorded by a checkpoint")
            return self._saved(existing=True, state=await self._value(outcome.carried, key))
        text = encode(state, key=key)
        carried = await self._presence.blobs.carried(text, key=key)
        data = Raw(outcome_data("checkpoint", text, carried.blob))
        await self._committed(self._report(Checkpointed, key=key, data=data))
        return self._saved(existing=False, state=orjson.loads(text))

    async def emit(self, name: str, data: object = None, *, key: str | None = None) -> None:
        """Record an event of the script's own, once: a run that is started again does not repeat it.

        Its key is made from name and data unless given.
        """
        self._check()
        check_id(name, "event")
        text = encode(data, key=name)
        if key is None:
            key, _ = self._keys.of_wait("", None, f"{name}~{_digest(text)}", self._memos.is_abandoned)
        else:
            self._use(key)
        if self._memos.answer(key) is None:
            carried = await self._presence.blobs.carried(text, key=key)
            await self._stored(self._report(Custom, key=key, name=name, data=carried.text, blob=carried.blob))

    @overload
    async def durable_sleep(self, delay: timedelta, /) -> Checkpoint: ...
    @overload
    async def durable_sleep(self, key: str, delay: timedelta, /) -> Checkpoint: ...
    async def durable_sleep(self, key: Any, delay: Any = None, /) -> Checkpoint:
        """Sleep for `delay`, counted once from the first run that says so. The process stays, and may be killed.

        It ends early when a pause or a cancel is asked for (`ended_early`): then call `suspended()` or `cancelled()`,
        or sleep on by the same call. Raises `DuplicateKey`; `Stopped` if the instance has ended meanwhile.
        """
        key, delay = key_and(timedelta, key, delay)
        if delay < timedelta(0):
            raise BadInput(reason=f"a sleep cannot take {delay}: a duration must not be negative")
        found, full = self._wait_key(key, f"sleep~{duration_text(delay // _MICROSECOND)}")
        if self._is_existing(found):
            return self._saved(existing=True, state=None)
        seconds = delay.total_seconds()
        opened = self._memos.opened(found)
        if isinstance(opened, SleepStarted):
            seconds = self._memos.clock.seconds_until(opened.due_us)
        due = self._presence.clock.monotonic() + seconds
        outcome = await self._outcome(found, due=due, kind="sleep", for_us=delay // _MICROSECOND)
        return self._early(full) if outcome is None else self._saved(existing=False, state=None)

    async def wait_signal(self, name: str, *, timeout: timedelta | None = None, key: str | None = None) -> Checkpoint:
        """Wait for a signal of that name; its data is the answer's `state`. One that has come before counts.

        It ends early as `durable_sleep` does; the signal is not lost. Raises `SignalTimeout` if none came within
        `timeout`; `Stopped` if the instance has ended meanwhile.
        """
        check_id(name, "signal")
        if timeout is not None and timeout < timedelta(0):
            raise BadInput(reason=f"a wait for a signal cannot take {timeout}: a duration must not be negative")
        found, full = self._wait_key(key, f"signal~{name}")
        existing = self._is_existing(found)
        for_us = None if timeout is None else timeout // _MICROSECOND
        outcome = await self._outcome(found, due=None, kind="signal", name=name, for_us=for_us)
        if outcome is None:
            return self._early(full)
        if outcome.outcome == "timeout":
            raise SignalTimeout(key=found, name=name)
        return self._saved(existing=existing, state=await self._value(outcome.carried, found))

    @property
    def should_pause(self) -> bool:
        """Somebody asked to pause: call `suspended()` at the next good place."""
        return self._presence.pause

    @property
    def should_cancel(self) -> bool:
        """Somebody asked to cancel: clean up and call `cancelled()`."""
        return self._presence.cancel

    # what it is told

    def resolved(self, memo: Memo) -> None:
        """A wait has its outcome."""
        self._memos.add(memo)
        self._wake(memo.key)

    def waits_longer_than(self, seconds: float) -> bool:
        now = time.monotonic()
        overdue = bool(self._waiting) and now - self._waits_since > seconds
        if overdue:
            self._waits_since = now
        return overdue

    def on_told(self) -> None:
        """Something is asked of it, or it is over: whoever waits should see."""
        self._told_pause &= self._presence.pause
        for key in list(self._waiting):
            self._wake(key)

    # inside

    async def _value(self, carried: Carried, key: str) -> Any:
        """Raises `BlobMissing`, `BlobCorrupt` if it was long, and is damaged."""
        return orjson.loads(await self._presence.blobs.text(carried, instance=self.id, key=key))

    async def _outcome(self, key: str, *, due: float | None, **parked: object) -> Waited | None:
        """The outcome of the wait under `key`, begun now unless it was; None if the script should hear something."""
        outcome = self._memos.answer(key)
        if outcome is None:
            try:
                if key not in self._begun and self._memos.opened(key) is None:
                    await self._stored(self._report(Parked, key=key, **parked))
                outcome = await self._wait(key, self._begun.setdefault(key, due))
            except asyncio.CancelledError:
                await self._give_up(key)
                raise
        if outcome is not None and not isinstance(outcome, Waited):
            raise KeyMismatch(key=key, reason="it was not recorded by a wait")
        return outcome

    async def _wait(self, key: str, due: float | None) -> Outcome | None:
        clock, loop = self._presence.clock, asyncio.get_running_loop()
        self._waits_since = time.monotonic()
        timer = clock.call_later(due - clock.monotonic(), self._slept, key) if due is not None else None
        try:
            while (outcome := self._memos.answer(key)) is None:
                self._check()
                if self._has_news:
                    return None
                self._waiting[key] = loop.create_future()
                await self._presence.wait(self._waiting[key])
            return outcome
        finally:
            self._waiting.pop(key, None)
            if timer is not None:
                timer.cancel()

    async def _give_up(self, key: str) -> None:
        """The script no longer waits: the signal goes to whoever waits next."""
        self._memos.abandon(key)
        self._begun.pop(key, None)
        if self._presence.stopped is None:
            await self._stored(self._report(Unparked, key=key))

    def _slept(self, key: str) -> None:
        self._memos.settle(key, SLEPT)
        self._wake(key)

    def _wake(self, key: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _check(self) -> None:
        if self._presence.stopped is not None:
            raise Stopped(f"{self.id} cannot go on: {self._presence.stopped}")

    def _use(self, key: str) -> None:
        self._check()
        self._keys.explicit("", check_key(key))

    def _wait_key(self, key: str | None, name: str) -> tuple[str, str]:
        """The key of a wait, and the one to release if the same call may come again."""
        self._check()
        return self._keys.of_wait("", key, name, self._memos.is_abandoned)

    def _is_existing(self, key: str) -> bool:
        """Whether a wait was over before this run came to it."""
        return key not in self._begun and self._memos.answer(key) is not None

    @property
    def _has_news(self) -> bool:
        """Somebody asks for what no wait has told the script yet."""
        return (self.should_pause and not self._told_pause) or (self.should_cancel and not self._told_cancel)

    def _early(self, release: str) -> Checkpoint:
        self._keys.release(release)
        self._told_pause, self._told_cancel = self.should_pause, self.should_cancel
        return msgspec.structs.replace(self._saved(existing=False, state=None), ended_early=True)

    def _saved(self, *, existing: bool, state: Any) -> Checkpoint:
        return Checkpoint(
            existing=existing, state=state, should_pause=self.should_pause, should_cancel=self.should_cancel
        )

    def _report(self, kind: type[R], /, **fields: object) -> R:
        self._seq += 1
        claim = {
            "instance": self.id, "attempt": self._presence.attempt, "nonce": self._presence.nonce, "seq": self._seq
        }  # fmt: skip
        return kind(**claim, at=time.time_ns() // 1_000, **fields)  # type: ignore[arg-type]  # `fields` are those of `kind`

    async def _committed(self, report: Report) -> None:
        try:
            await self._presence.outlet.send_committed(report)
        except RuntaraError as exc:
            self._presence.stop(str(exc))
            raise Stopped(str(exc)) from exc

    async def _stored(self, report: Report) -> None:
        try:
            await self._presence.outlet.send(report)
        except RuntaraError as exc:
            self._presence.stop(str(exc))
            raise Stopped(str(exc)) from exc

    async def _end(self, kind: type[R], **fields: object) -> None:
        self._check()
        report = self._report(kind, **fields)
        self._presence.stop(f"its last record was {kind.__name__.lower()}")
        await self._stored(report)
        await self._presence.close()


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=4).hexdigest()


def _script_name() -> str:
    """What the script is called, as an id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(sys.argv[0]).stem).strip("-") or "script"
