"""Memos: what earlier attempts recorded, by key; the answers of a resumed run.

Invariants: the first outcome of a key is its answer; a memo is decoded when it is asked for, not before; what was
never asked for can be told at the end. Memos of operations that wait (sleep, signal, child) are no outcomes: they
belong into a table of their own beside this one, filled in `add` and moved here by their WaitResolved.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

from runtara.infra.clock import JournalClock
from runtara.protocol.errors import WireError
from runtara.protocol.events import CheckpointSaved, CustomEvent, StepFailed, decode_event, encode_data
from runtara.protocol.messages import Memo
from runtara.protocol.records import NO_DATA, Checkpointed, Custom, Report, StepFailure

from .keys import TIMEOUT_KEY
from .ports import Clock

_DIGEST: Final = "digest"


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a CheckpointSaved. `args` is the digest of a step's arguments, where its key was made from them."""

    kind: str
    value: Raw
    args: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The failure of a step after `n` tries; `due_us`: when the next try is due by the journal's clock, None if that
    was the last."""

    n: int
    error: WireError
    due_us: int | None = None

    @property
    def args(self) -> str:
        return str(self.error.attributes.get(_DIGEST, ""))


class Emitted(msgspec.Struct, frozen=True, kw_only=True):
    """A custom event was recorded. It has no digest: its key is long enough."""

    args: str = ""


Outcome = Recorded | Failure | Emitted
_decoder: Final = msgspec.json.Decoder(Recorded)


class Memos:
    """The recorded keys of earlier attempts. `now_us`: what the journal's clock shows, where that is known."""

    def __init__(self, memos: Iterable[Memo] = (), now_us: int | None = None, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or JournalClock()
        if now_us is not None:
            self.clock.seen(now_us)
        self._memos: dict[str, Memo] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._tries: dict[str, Failure] = {}
        self._asked: set[str] = set()
        for memo in sorted(memos, key=_version):
            self.add(memo)

    def __bool__(self) -> bool:
        return bool(self._memos or self._tries)

    def add(self, memo: Memo) -> None:
        if memo.type in (CheckpointSaved.__name__, CustomEvent.__name__):
            self._memos.setdefault(memo.key, memo)
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
        elif isinstance(record, StepFailure):
            due_us = None if record.for_us is None else self.clock.now_us() + record.for_us
            event = StepFailed(n=record.n, error=record.error, due_us=due_us)
            self.add(Memo(key=record.key, version=0, type=StepFailed.__name__, data=Raw(encode_data(event))))

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

    def recorded_at(self, key: str) -> int | None:
        """When `key` was recorded, by the journal's clock."""
        memo = self._memos.get(key)
        return None if memo is None else memo.at

    def digest(self, key: str) -> str | None:
        """See `keys.Recorded`."""
        outcome = self.peek(key) or self._tries.get(key)
        return None if outcome is None else outcome.args

    def tried(self, key: str) -> Failure | None:
        """The last failed try of a step that is to be tried again."""
        return self._tries.get(key)

    def unasked(self) -> list[str]:
        """Recorded keys that this run never asked for: the code has changed, or took another way."""
        return [key for key in self._memos if key not in self._asked and key != TIMEOUT_KEY]


def failure_attributes(attributes: dict[str, object], digest: str) -> dict[str, object]:
    """An error's attributes with the digest of the step's arguments among them, for the record."""
    return {**attributes, _DIGEST: digest} if digest else attributes


def without_digest(attributes: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if name != _DIGEST}


def _outcome(memo: Memo) -> Outcome:
    return Emitted() if memo.type == CustomEvent.__name__ else _decoder.decode(memo.data)


def _failure(memo: Memo) -> Failure:
    event = decode_event(memo.type, memo.key, bytes(memo.data))
    assert isinstance(event, StepFailed)
    return Failure(n=event.n, error=event.error, due_us=event.due_us)


def _version(memo: Memo) -> int:
    return memo.version
