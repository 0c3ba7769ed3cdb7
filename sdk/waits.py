"""The durable operations that wait: sleeps, signals, children.

Each passes the gate, takes its key, asks the memos, says in the journal that it waits, and is blocked until its outcome
is known. A wait that an earlier attempt began is gone on with: nothing is said again, and its deadline does not move.

Invariants: the outcome is the engine's, the same after a resume. Sleeps and signals that the code gives up (a time-out
in user code, say) are given up in the log too, so a signal goes to whoever waits next; a child is not: it runs, and
whoever calls it again gets the same one.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from runtara.protocol.errors import BadInput, InvalidInput, KeyMismatch, SignalTimeout, StateNotRepresentable
from runtara.protocol.events import SleepStarted, WaitStarted
from runtara.protocol.ids import check_id
from runtara.protocol.records import Parked, Unparked

from .blobs import Blobs
from .gate import Gate
from .memos import Memos, Open, Outcome, Waited
from .operations import Operations
from .parks import Parks
from .reports import Reports
from .scope import FRAME
from .values import Codec

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Fenced = Callable[[str], None]
T = TypeVar("T")


class Waits:
    """What a Context can wait for."""

    def __init__(
        self, operations: Operations, *, instance: str, gate: Gate, reports: Reports, memos: Memos, parks: Parks,
        blobs: Blobs, fenced: Fenced,
    ) -> None:  # fmt: skip
        self.instance = instance
        self.blobs = blobs
        self._operations = operations
        self.keys = operations.keys
        self._gate = gate
        self._reports = reports
        self._memos = memos
        self._parks = parks
        self._fenced = fenced
        self._signals: set[str] = set()

    async def sleep(self, key: str | None, delay: timedelta) -> None:
        micros = delay // _MICROSECOND
        if micros < 0:
            raise BadInput(reason=f"a sleep cannot take {delay}: a duration must not be negative")
        due = self._memos.clock.monotonic() + micros / 1e6
        await self._sleep(key, f"sleep~{duration_text(micros)}", due, for_us=micros)

    async def sleep_until(self, key: str | None, when: datetime) -> None:
        if when.tzinfo is None:
            raise BadInput(reason=f"{when} has no time zone; say which one is meant: datetime(…, tzinfo=UTC)")
        micros = (when - _EPOCH) // _MICROSECOND
        name = f"sleep_until~{when.astimezone(UTC).isoformat()}"
        await self._sleep(key, name, self._memos.due(micros), until_us=micros)

    async def signal(self, name: str, timeout: timedelta | None, kind: object, key: str | None) -> Any:
        check_id(name, "signal")
        micros = None if timeout is None else timeout // _MICROSECOND
        if micros is not None and micros < 0:
            raise BadInput(reason=f"a wait for a signal cannot take {timeout}: a duration must not be negative")
        place = f"{FRAME.get().prefix}{name}"
        if key is None and place in self._signals:
            raise KeyMismatch(
                key=f"signal~{place}", reason=f"another wait for the signal {name!r} is open, and either could get it"
            )
        if key is None:
            self._signals.add(place)
        try:
            outcome, found = await self._signal(name, micros, key)
        finally:
            if key is None:
                self._signals.discard(place)
        if outcome.outcome == "timeout":
            raise SignalTimeout(key=found, name=name)
        try:
            return Codec(kind).decode(await self.text(outcome, found), key=found)
        except StateNotRepresentable as exc:
            raise InvalidInput(workflow=f"the wait for signal {name!r}", reason=exc.attributes["reason"]) from exc

    def was_given_up(self, key: str) -> bool:
        """Whether a wait under the author's `key` was begun and then given up: what it guarded came first."""
        return self._memos.is_abandoned(FRAME.get().prefix + key)

    # how each begins

    async def _sleep(self, key: str | None, name: str, due: float | None, **how_long: int) -> None:
        found, full = await self.key(key, name)
        outcome = self._memos.answer(found)
        opened = self._memos.opened(found)
        if outcome is None and isinstance(opened, SleepStarted):
            due = self._memos.due(opened.due_us)
        self._check(found, opened, SleepStarted)
        if outcome is None:
            await self.begins()
            record = None if opened is not None else self.parked(found, kind="sleep", **how_long)
            outcome = await self._wait(found, full, record, due)
        _as_wait(found, outcome)

    async def _signal(self, name: str, micros: int | None, key: str | None) -> tuple[Waited, str]:
        found, full = await self.key(key, f"signal~{name}")
        outcome = self._memos.answer(found)
        opened = self._memos.opened(found)
        self._check(found, opened, WaitStarted)
        if isinstance(opened, WaitStarted) and opened.name != name:
            raise KeyMismatch(key=found, reason=f"it is a wait for the signal {opened.name!r}")
        if outcome is None:
            await self.begins()
            record = None if opened is not None else self.parked(found, kind="signal", name=name, for_us=micros)
            outcome = await self._wait(found, full, record, None)
        return _as_wait(found, outcome), found

    # shared

    async def key(self, key: str | None, name: str) -> tuple[str, str]:
        """The key of a wait, once the gate is open, and the one to release when it is given up."""
        frame = FRAME.get()
        await self.passing()
        return self.keys.of_wait(frame.prefix, key, name, self._memos.is_abandoned)

    async def automatic_key(self, name: str, fingerprint: str) -> str:
        prefix = FRAME.get().prefix
        await self.passing()
        return self.keys.automatic(prefix, name, fingerprint)[0]

    async def passing(self) -> None:
        if self._gate.shut:
            await self._gate.passing(in_step=FRAME.get().in_step)

    async def begins(self) -> None:
        """Nothing is recorded of what is to be done or waited for."""
        await self._operations.begins(FRAME.get())

    async def text(self, outcome: Waited, key: str) -> bytes:
        """The JSON that a wait has ended with."""
        return await self.blobs.text(outcome.carried, instance=self.instance, key=key)

    def _check(self, key: str, opened: Open | None, kind: type[Open]) -> None:
        if opened is not None and not isinstance(opened, kind):
            raise KeyMismatch(key=key, reason="it is another kind of wait")

    def parked(self, key: str, **fields: Any) -> Parked:
        """A record that must be said at once."""
        return self._reports.make(Parked, key=key, **fields)

    async def _wait(self, found: str, full: str, record: Parked | None, due: float | None) -> Waited:
        """Say that it waits, unless that was said, and wait."""
        try:
            if record is not None:
                await self.say(record)
            known = self._memos.answer(found)  # it may have come before the acknowledgement
            return known if isinstance(known, Waited) else await self._parks.outcome(found, due=due)
        except asyncio.CancelledError:
            if not self._gate.frozen:
                self._give_up(found, full)
            raise

    async def say(self, record: Parked, *, child: str | None = None) -> None:
        """Until the journal has it. Whoever asks for the key in this attempt finds it begun."""
        sent = self._reports.send(record, "journal")
        if child is not None:
            self._memos.child_requested(record, child)
        try:
            await sent
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._fenced(str(exc))
            raise asyncio.CancelledError("superseded") from exc

    def _give_up(self, found: str, full: str) -> None:
        """The code no longer waits. Whoever asks for this key again begins another wait."""
        self._memos.abandon(found)
        self.keys.release(full)
        self._reports.send(self._reports.make(Unparked, key=found), "journal")


def _as_wait(key: str, outcome: Outcome) -> Waited:
    if not isinstance(outcome, Waited):
        raise KeyMismatch(key=key, reason="it was recorded by a step, a checkpoint or an event")
    return outcome


def duration_text(micros: int) -> str:
    """As it stands in an automatic key."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{seconds}s" if not rest else f"{micros}us"


def key_and(kind: type[T], first: str | T, second: T | None) -> tuple[str | None, T]:
    """The arguments of `fn([key,] value)`."""
    key, value = (None, first) if second is None else (first, second)
    if not isinstance(value, kind) or not (key is None or isinstance(key, str)):
        raise TypeError(f"give a {kind.__name__}, or a key and a {kind.__name__}; not {first!r}, {second!r}")
    return key, value
