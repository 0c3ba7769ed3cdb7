"""Memos: what earlier attempts recorded, by key; the answers of a resumed run.

Invariants: the first outcome of a key is its answer; a memo is decoded when it is asked for, not before; what was
never asked for can be told at the end. That an operation waits (sleep, signal, child) is no outcome: such memos have a
table of their own, beside that of the outcomes, into which WaitResolved goes. A wait that was given up has none.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from runtara.infra.clock import JournalClock
from runtara.protocol.blobs import Blob, Carried
from runtara.protocol.errors import WireError
from runtara.protocol.events import (
    CheckpointSaved,
    ChildRequested,
    CompensationAdded,
    CompensationInherited,
    CustomEvent,
    SleepStarted,
    StepFailed,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
    decode_event,
    encode_data,
)
from runtara.protocol.messages import Memo
from runtara.protocol.records import NO_DATA, Checkpointed, Compensating, Custom, Parked, Report, StepFailure

from .keys import input_fingerprint, long_part
from .ports import Clock
from .retry import Tries

_DIGEST: Final = "digest"
_ASKED: Final = "tries_asked_for"
_WAITED: Final = "waited_as_asked_us"
_OURS: Final = frozenset({_DIGEST, _ASKED, _WAITED})


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a CheckpointSaved. `args` is the digest of a step's arguments, where its key was made from them."""

    kind: str
    value: Raw = NO_DATA
    blob: Blob | None = None
    args: str = ""

    @property
    def carried(self) -> Carried:
        return Carried(self.value, self.blob)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The failure of a step after `n` tries; `due_us`: when the next try is due by the journal's clock, None if that
    was the last."""

    n: int
    error: WireError
    due_us: int | None = None

    @property
    def args(self) -> str:
        return str(self.error.attributes.get(_DIGEST, ""))

    @property
    def tries(self) -> Tries:
        asked, waited = self.error.attributes.get(_ASKED), self.error.attributes.get(_WAITED)
        return Tries(self.n, asked if isinstance(asked, int) else 0, waited if isinstance(waited, int) else 0)


class Emitted(msgspec.Struct, frozen=True, kw_only=True):
    """A custom event was recorded. It has no digest: its key is long enough."""

    args: str = ""


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """The one outcome of a wait: `slept`, `timeout`, `signal` with its data, `child` with its result or error."""

    outcome: str
    data: Raw = NO_DATA
    blob: Blob | None = None
    error: WireError | None = None
    args: str = ""

    @property
    def carried(self) -> Carried:
        return Carried(self.data, self.blob)


Outcome = Recorded | Failure | Emitted | Waited
Open = SleepStarted | WaitStarted | ChildRequested
SLEPT: Final = Waited(outcome="slept")
_OUTCOMES: Final = frozenset({CheckpointSaved.__name__, CustomEvent.__name__, WaitResolved.__name__})
_OPENS: Final = frozenset({SleepStarted.__name__, WaitStarted.__name__, ChildRequested.__name__})
_decoder: Final = msgspec.json.Decoder(Recorded)
_wait_decoder: Final = msgspec.json.Decoder(Waited)


class Memos:
    """The recorded keys of earlier attempts. `now_us`: what the journal's clock shows, where that is known."""

    def __init__(self, memos: Iterable[Memo] = (), now_us: int | None = None, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or JournalClock()
        if now_us is not None:
            self.clock.seen(now_us)
        self._memos: dict[str, Memo] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._tries: dict[str, Failure] = {}
        self._opens: dict[str, Memo] = {}
        self._abandoned: set[str] = set()
        self._undo_digests: dict[str, str] = {}
        self.undos: dict[str, int] = {}  # the registered compensations: version by key
        self.inherited: set[str] = set()  # those that a fork's source has registered, and undoes itself
        self._asked: set[str] = set()
        for memo in sorted(memos, key=_version):
            self.add(memo)

    def __bool__(self) -> bool:
        return bool(self._memos or self._tries or self._opens or self.undos or self.inherited)

    def add(self, memo: Memo) -> None:
        if memo.type in _OUTCOMES:
            if memo.key not in self._abandoned:
                self._memos.setdefault(memo.key, memo)
        elif memo.type in _OPENS:
            self._opens.setdefault(memo.key, memo)
        elif memo.type == WaitAbandoned.__name__:
            self.abandon(memo.key)
        elif memo.type == CompensationAdded.__name__:
            self.undos[memo.key] = memo.version
            self._undo_digests[memo.key] = _undo_digest(memo)
        elif memo.type == CompensationInherited.__name__:
            self.inherited.add(memo.key)
            self._undo_digests[memo.key] = _undo_digest(memo)
        elif memo.type == StepFailed.__name__:
            failure = _failure(memo)
            if failure.due_us is not None:
                self._tries[memo.key] = failure
            elif memo.key not in self._memos:
                self._memos[memo.key] = memo
                self._outcomes[memo.key] = failure

    def remember(self, record: Report) -> None:
        """A record of this very attempt, sent though its caller no longer waited: who asks again is answered by it."""
        if isinstance(record, Checkpointed):
            self.add(Memo(key=record.key, version=0, type=CheckpointSaved.__name__, data=record.data))
        elif isinstance(record, Custom):
            self.add(Memo(key=record.key, version=0, type=CustomEvent.__name__, data=NO_DATA))
        elif isinstance(record, Compensating):
            event = CompensationAdded(data=record.data)
            self.add(Memo(key=record.key, version=0, type=CompensationAdded.__name__, data=Raw(encode_data(event))))
        elif isinstance(record, StepFailure):
            due_us = None if record.for_us is None else self.clock.now_us() + record.for_us
            failed = StepFailed(n=record.n, error=record.error, due_us=due_us)
            self.add(Memo(key=record.key, version=0, type=StepFailed.__name__, data=Raw(encode_data(failed))))

    def settle(self, key: str, outcome: Waited) -> None:
        """The outcome of a wait that this process knows before the engine has told it."""
        if key not in self._abandoned:
            self._outcomes.setdefault(key, outcome)

    def child_requested(self, record: Parked, child: str) -> None:
        """This attempt has asked for a child."""
        assert record.child is not None
        event = ChildRequested(child=child, request=record.child)
        memo = Memo(key=record.key, version=0, type=ChildRequested.__name__, data=Raw(encode_data(event)))
        self._opens[record.key] = memo
        self._asked.add(record.key)

    def abandon(self, key: str) -> None:
        """The wait was given up: it has no outcome, and another one needs another key."""
        self._abandoned.add(key)
        self._memos.pop(key, None)
        self._outcomes.pop(key, None)

    def is_abandoned(self, key: str) -> bool:
        return key in self._abandoned

    def opened(self, key: str) -> Open | None:
        """The wait that was begun under `key`, whatever became of it. It counts as asked for."""
        memo = self._opens.get(key)
        if memo is None:
            return None
        self._asked.add(key)
        return _opened(memo)

    def due(self, due_us: int) -> float | None:
        """When the journal's clock will show `due_us`, by `clock.monotonic`; None if it was never seen."""
        return self.clock.monotonic() + self.clock.seconds_until(due_us) if self.clock.is_known else None

    def answer(self, key: str) -> Outcome | None:
        """The outcome recorded under `key`, which counts as asked for."""
        outcome = self.peek(key)
        if outcome is not None:
            self._asked.add(key)
        return outcome

    def peek(self, key: str) -> Outcome | None:
        outcome = self._outcomes.get(key)
        if outcome is None and (memo := self._memos.get(key)) is not None:
            outcome = self._outcomes[key] = _outcome(memo)
        return outcome

    def digest(self, key: str) -> str | None:
        """See `keys.Recorded`. A child's is worked out from its recorded input."""
        memo = self._opens.get(key)
        if memo is not None:
            opened = _opened(memo)
            return _input_digest(opened) if isinstance(opened, ChildRequested) else ""
        outcome = self.peek(key) or self._tries.get(key)
        return None if outcome is None else outcome.args

    def undo_digest(self, key: str) -> str | None:
        """As `digest`, of the compensation registered under `key`."""
        return self._undo_digests.get(key)

    def tried(self, key: str) -> Failure | None:
        """The last failed try of a step that is to be tried again."""
        return self._tries.get(key)

    def unasked(self) -> list[str]:
        """Recorded keys that this run never asked for: the code has changed, or took another way."""
        return [key for key in self._memos if key not in self._asked and not key.startswith("~")]


def failure_attributes(attributes: dict[str, object], digest: str, tries: Tries) -> dict[str, object]:
    """An error's attributes with what we keep among them, for the record: the digest of the step's arguments, and how
    many tries ended with an error that said when to come again, and how long such waits were."""
    ours = {_DIGEST: digest, _ASKED: tries.asked, _WAITED: tries.waited_us}
    return {**attributes, **{name: value for name, value in ours.items() if value}}


def own_attributes(attributes: dict[str, object]) -> dict[str, object]:
    """An error's attributes without what we keep among them."""
    return {name: value for name, value in attributes.items() if name not in _OURS}


def _outcome(memo: Memo) -> Outcome:
    if memo.type == CustomEvent.__name__:
        return Emitted()
    return _wait_decoder.decode(memo.data) if memo.type == WaitResolved.__name__ else _decoder.decode(memo.data)


def _opened(memo: Memo) -> Open:
    event = decode_event(memo.type, memo.key, bytes(memo.data))
    assert isinstance(event, Open)
    return event


def _input_digest(event: ChildRequested) -> str:
    request = event.request
    if request.blob is not None:
        return request.digest
    return long_part(input_fingerprint(orjson.loads(bytes(request.input))))


def _failure(memo: Memo) -> Failure:
    event = decode_event(memo.type, memo.key, bytes(memo.data))
    assert isinstance(event, StepFailed)
    return Failure(n=event.n, error=event.error, due_us=event.due_us)


def _undo_digest(memo: Memo) -> str:
    event = decode_event(memo.type, memo.key, bytes(memo.data))
    data = orjson.loads(bytes(event.data)) if isinstance(event, CompensationAdded | CompensationInherited) else None
    return str(data.get("args", "")) if isinstance(data, dict) else ""


def _version(memo: Memo) -> int:
    return memo.version
