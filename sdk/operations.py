"""The durable operations of one attempt: steps, checkpoints, custom events, recorded times.

Each passes the gate, takes its key, asks the memos, and only if they have no answer does its work and records it.
Operations that wait (`waits`) follow the same four moves and then park; so does a step between two tries, so that an
instance whose next try is far away can leave its process.

Invariants: what a call returns is what was recorded, in the first run too; a value that cannot be recorded is
refused before anything is sent; nothing is recorded past the gate's freeze; while a step's function runs it counts
as in flight, and it no longer does once its record is queued.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw

from runtara.protocol.blobs import ABSENT, Blob
from runtara.protocol.errors import KeyMismatch, StepTimeout
from runtara.protocol.limits import INLINE_BYTES
from runtara.protocol.records import Checkpointed, Compensating, Custom, StepFailure

from .blobs import Blobs
from .failures import declared_code, describe, step_error
from .gate import Gate
from .keys import Keys
from .memos import Emitted, Failure, Memos, Outcome, Recorded, failure_attributes
from .parks import Parks
from .ports import Durability
from .reports import Reports, Sent
from .retry import Tries
from .scope import FRAME, Frame
from .signature import StepSpec
from .threads import Portal, Result
from .values import PLAIN, Codec, codec_like, encode

T = TypeVar("T")
Arguments = tuple[object, ...]
Fenced = Callable[[str], None]
InThread = Callable[[Callable[[], Any], bool], Coroutine[Any, Any, Result[Any]]]
_YIELD_EVERY: Final = 256  # answers from memos in a row before the loop gets a turn
_MICROSECOND: Final = timedelta(microseconds=1)


class Saved(msgspec.Struct, Generic[T], frozen=True):
    """What `checkpoint` found: `existing` if an earlier attempt recorded `state` under this key."""

    existing: bool
    state: T


class Operations:
    """What a Context can do that is recorded. `default`: durability by the workflow's or worker's settings, if any."""

    def __init__(
        self, *, instance: str, gate: Gate, reports: Reports, memos: Memos, parks: Parks, blobs: Blobs,
        default: Durability | None, in_thread: InThread, portal: Portal, fenced: Fenced, confirmed: asyncio.Event,
    ) -> None:  # fmt: skip
        self._instance = instance
        self._gate = gate
        self._reports = reports
        self._memos = memos
        self._parks = parks
        self._blobs = blobs
        self.default: Durability = default or "journal"
        self._checkpoint_default: Durability = default or "log"
        self._in_thread = in_thread
        self._portal = portal
        self._fenced = fenced
        self._confirmed = confirmed
        self._replayed = 0
        self.keys = Keys(memos.digest if memos else None)
        self.replaying = bool(memos)

    # steps

    async def step(self, spec: StepSpec, explicit: str | None, args: Arguments, kwargs: dict[str, object]) -> Any:
        """Call `spec`'s function once and for all under its key, and give what was recorded."""
        frame = FRAME.get()
        if frame.in_step:
            return await self._plain(spec, args, kwargs)
        gate = self._gate
        if gate.shut:
            await gate.passing()
        if explicit is None:
            key, digest = self.keys.of_step(frame.prefix, spec, args, kwargs)
        else:
            key, digest = self.keys.explicit(frame.prefix, explicit), ""
        if self._memos:
            outcome = self._memos.answer(key)
            if outcome is not None:
                return await self._answer(outcome, key, spec.codec, "step", spec)
            self.replaying = False
        return await self._first_run(spec, key, digest, args, kwargs)

    async def _first_run(
        self, spec: StepSpec, key: str, digest: str, args: Arguments, kwargs: dict[str, object]
    ) -> Any:
        gate, codec = self._gate, spec.codec
        if gate.undoing:
            await self.begins(FRAME.get())
        tries = await self._earlier_tries(key) if self._memos else Tries()
        while True:
            tries = tries._replace(made=tries.made + 1)
            record: Checkpointed | StepFailure
            gate.in_flight += 1
            try:
                try:
                    value = await self._body(spec, key, args, kwargs)
                except asyncio.CancelledError:
                    self.keys.release(key)
                    raise
                except (Exception, SystemExit) as exc:
                    record, tries = self._failure(spec, key, digest, tries, exc)
                else:
                    result, record = await self._result(codec, key, digest, value)
                sent = self._reports.send(record, spec.durability or self.default)
            finally:
                gate.landed()
            await self.acknowledged(record, sent)
            if isinstance(record, Checkpointed):
                return result
            if record.for_us is None:
                raise step_error(key, record.error, tries.made, spec.raises)
            self._memos.remember(record)
            await self._rest(key, record.for_us / 1e6)

    async def undo(self, spec: StepSpec, key: str, args: Arguments, kwargs: dict[str, object]) -> None:
        """Call a compensation as a step under `key`, which has no answer yet."""
        if self._gate.shut:
            await self._gate.passing()
        await self._first_run(spec, key, "", args, kwargs)

    async def decide(self, key: str, text: bytes) -> None:
        """Record what the rest of this attempt, and every later one, is to keep to."""
        await self._record(self._reports.checkpointed(key, b'{"kind":"decision","value":' + text + b"}"), self.default)

    async def _result(self, codec: Codec, key: str, digest: str, value: object) -> tuple[Any, Checkpointed]:
        """What the caller gets, and its record. A value that cannot be recorded is not cured by another try."""
        try:
            text = encode(value, key=key)
            result = codec.as_recorded(value, text, key=key)
            blob = None if len(text) <= INLINE_BYTES else await self._blobs.put(text, key=key)
        except BaseException:
            self.keys.release(key)  # nothing was recorded
            raise
        return result, self._reports.checkpointed(key, outcome_data("step", text, blob, digest))

    def _failure(
        self, spec: StepSpec, key: str, digest: str, tries: Tries, error: BaseException
    ) -> tuple[StepFailure, Tries]:
        """The record of a failed try: with the time until the next one, or as the key's answer from now on."""
        wait, tries = spec.retry.wait_after(error, tries, random=random.random())
        described = describe(error, code=declared_code(error, spec.raises))
        attributes = failure_attributes(described.attributes, digest, tries)
        described = msgspec.structs.replace(described, attributes=attributes)
        for_us = None if wait is None else wait // _MICROSECOND
        return self._reports.make(StepFailure, key=key, n=tries.made, error=described, for_us=for_us), tries

    async def _earlier_tries(self, key: str) -> Tries:
        """How often this step was tried before; the next try is due when this returns."""
        failure = self._memos.tried(key)
        if failure is None or failure.due_us is None:
            return Tries()
        await self._rest(key, self._memos.clock.seconds_until(failure.due_us))
        return failure.tries

    async def _rest(self, key: str, seconds: float) -> None:
        """Wait for the next try. Code that no longer waits (a time-out of its own, say) may call the step again."""
        try:
            if seconds > 0:
                await self._parks.rest(key, self._memos.clock.monotonic() + seconds)
        except asyncio.CancelledError:
            self.keys.release(key)
            raise

    async def _body(self, spec: StepSpec, key: str, args: Arguments, kwargs: dict[str, object]) -> Any:
        """The function itself, inside the frame of a step."""
        outer = FRAME.get()
        token = FRAME.set(outer.body(key))
        try:
            if spec.timeout_seconds is not None:
                return await self._timed(spec, key, args, kwargs)
            if spec.is_async:
                return await spec.fn(*args, **kwargs)
            return await self._threaded(spec, args, kwargs)
        finally:
            FRAME.reset(token)

    async def _timed(self, spec: StepSpec, key: str, args: Arguments, kwargs: dict[str, object]) -> Any:
        """A `def` function gets a thread of its own, since nothing can interrupt it where it is blocked: whoever called
        goes on in time, and what it still returns is thrown away."""
        seconds = spec.timeout_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                return await (
                    spec.fn(*args, **kwargs) if spec.is_async else self._threaded(spec, args, kwargs, alone=True)
                )
        except TimeoutError as exc:
            if limit.expired():
                raise StepTimeout(key=key, seconds=seconds) from exc
            raise

    async def _threaded(
        self, spec: StepSpec, args: Arguments, kwargs: dict[str, object], *, alone: bool = False
    ) -> Any:
        """A `def` function: in the thread that called, unless it is to be alone in one; else in one of its own."""

        def call() -> Any:
            return spec.fn(*args, **kwargs)

        in_caller = None if alone else self._portal.run_in_caller(call)
        result = await (asyncio.shield(in_caller) if in_caller is not None else self._in_thread(call, alone))
        value = result.get()
        return await value if asyncio.iscoroutine(value) else value

    async def _plain(self, spec: StepSpec, args: Arguments, kwargs: dict[str, object]) -> Any:
        return await (spec.fn(*args, **kwargs) if spec.is_async else self._threaded(spec, args, kwargs))

    # the others

    async def checkpoint(self, key: str, state: T, durability: Durability | None) -> Saved[T]:
        frame = FRAME.get()
        if self._gate.shut:
            await self._gate.passing(in_step=frame.in_step)
        full = self.keys.explicit(frame.prefix, key)
        codec = codec_like(state)
        outcome = self._memos.answer(full) if self._memos else None
        if outcome is not None:
            return Saved(True, await self._answer(outcome, full, codec, "checkpoint"))
        await self.begins(frame)
        text = encode(state, key=full)
        saved = Saved(False, codec.as_recorded(state, text, key=full))
        blob = await self._put_aside(text, full)
        data = outcome_data("checkpoint", text, blob)
        await self._record(self._reports.checkpointed(full, data), durability or self._checkpoint_default)
        await self._confirmed.wait()
        return saved

    async def now(self, key: str, durability: Durability | None) -> datetime:
        frame = FRAME.get()
        if self._gate.shut:
            await self._gate.passing(in_step=frame.in_step)
        full = self.keys.explicit(frame.prefix, key)
        outcome = self._memos.answer(full) if self._memos else None
        if outcome is not None:
            return datetime.fromtimestamp(await self._answer(outcome, full, PLAIN, "step") / 1e6, UTC)
        await self.begins(frame)
        micros = self._memos.clock.utc_us()
        data = outcome_data("step", str(micros).encode(), None)
        await self._record(self._reports.checkpointed(full, data), durability or self.default)
        return datetime.fromtimestamp(micros / 1e6, UTC)

    async def emit(self, name: str, data: object, key: str | None, durability: Durability | None) -> None:
        frame = FRAME.get()
        if self._gate.shut:
            await self._gate.passing(in_step=frame.in_step)
        full = self.keys.explicit(frame.prefix, key) if key else self.keys.of_event(frame.prefix, name, data)
        if self._memos:
            outcome = self._memos.answer(full)
            if outcome is not None:
                if not isinstance(outcome, Emitted):
                    raise KeyMismatch(key=full, reason="it was recorded by a step or checkpoint")
                return
        await self.begins(frame)
        text = encode(data, key=full)
        blob = await self._put_aside(text, full)
        record = self._reports.make(Custom, key=full, name=name, data=ABSENT if blob else Raw(text), blob=blob)
        await self._record(record, durability or self.default)

    # shared

    async def begins(self, frame: Frame) -> None:
        """Something that has no record yet begins; not by the code of an instance that is undone."""
        self.replaying = False
        if self._gate.undoing and not frame.is_undo:
            await self._gate.hold()

    async def _answer(self, outcome: Outcome, key: str, codec: Codec, kind: str, spec: StepSpec | None = None) -> Any:
        self._replayed += 1
        if self._replayed % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        if isinstance(outcome, Recorded) and outcome.kind == kind:
            text = bytes(outcome.value)
            if outcome.blob is not None:
                text = await self._blobs.text(outcome.carried, instance=self._instance, key=key)
            return codec.decode(text, key=key)
        if isinstance(outcome, Failure) and spec is not None:
            raise step_error(key, outcome.error, outcome.n, spec.raises)
        raise KeyMismatch(key=key, reason="it was recorded by another kind of operation")

    async def _put_aside(self, text: bytes, key: str) -> Blob | None:
        """Where a long value is stored from now on. The record that names it is to be numbered after that."""
        if len(text) <= INLINE_BYTES:
            return None
        try:
            return await self._blobs.put(text, key=key)
        except BaseException:
            self.keys.release(key)  # nothing was recorded
            raise

    async def _record(self, record: Checkpointed | StepFailure | Custom, durability: Durability) -> None:
        await self.acknowledged(record, self._reports.send(record, durability))

    async def acknowledged(self, record: Checkpointed | StepFailure | Custom | Compensating, sent: Sent) -> None:
        """Wait until the record is where it must be. If it cannot be, the claim no longer counts."""
        try:
            await sent
        except asyncio.CancelledError:
            if (
                not self._gate.frozen
            ):  # a time-out in user code, say; the record is on its way and answers the next call
                self._memos.remember(record)
                self.keys.release(record.key)
            raise
        except Exception as exc:
            self._fenced(str(exc))
            raise asyncio.CancelledError("superseded") from exc


def outcome_data(kind: str, text: bytes, blob: Blob | None, digest: str = "") -> bytes:
    """The data of a `checkpointed`: the value itself, or where it is."""
    name, value = (b"value", text) if blob is None else (b"blob", msgspec.json.encode(blob))
    args = b',"args":"%b"' % digest.encode() if digest else b""
    return b'{"kind":"%b","%b":%b%b}' % (kind.encode(), name, value, args)
