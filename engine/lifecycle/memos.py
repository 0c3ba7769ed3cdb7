"""Which events of a log are memos of the current generation: what a claim is answered with, and which keys are taken.

Memos are events with a key. Those before the last InstanceContinued are not served; of those before the last
InstanceRetried, whatever led to a failure is forgotten, so that it is tried again.
"""

from collections.abc import Iterable

from runtara.protocol.events import (
    AnyEvent,
    CheckpointSaved,
    ChildRequested,
    CompensationAdded,
    CompensationInherited,
    CustomEvent,
    MemoCopied,
    SleepStarted,
    StepFailed,
    WaitResolved,
    WaitStarted,
)

from .keyset import key_hash
from .state import State

OF_UNDOS = (CompensationAdded, CompensationInherited)  # their keys are of another kind than those of operations
_TAKES_KEY = (CheckpointSaved, SleepStarted, WaitStarted, ChildRequested, CustomEvent, MemoCopied)


def takes_key(event: AnyEvent) -> bool:
    """Whether no other outcome may be recorded under the event's key. A try that will be repeated does not take it."""
    return isinstance(event, _TAKES_KEY) or (isinstance(event, StepFailed) and event.due_us is None)


def is_failure(event: AnyEvent) -> bool:
    """Whether the memo is a failure, which `retry` forgets."""
    if isinstance(event, StepFailed):
        return event.due_us is None
    return isinstance(event, WaitResolved) and event.error is not None


def served(state: State, log: Iterable[tuple[int, AnyEvent]]) -> list[tuple[int, AnyEvent]]:
    """Of the (version, event) in `log`, in order, those that answer keys now.

    In SQL: `version > floor`, a memo type, and no failure `f` of the same key with `e.version <= f.version < retried`.
    Compensations have keys of their own kind: the failure of a step that is called like one does not concern it.
    """
    memos = [(version, event) for version, event in log if version > state.floor and event.key is not None]
    failed: dict[str | None, int] = {
        event.key: version for version, event in memos if version < state.retried and is_failure(event)
    }
    return [
        (version, event)
        for version, event in memos
        if version > failed.get(event.key, 0) or isinstance(event, OF_UNDOS)
    ]


def recorded_keys(state: State, log: Iterable[tuple[int, AnyEvent]]) -> list[int]:
    """The hashes for `with_keys`, from all events with a key after `state.floor`."""
    return [key_hash(event.key or "") for _, event in served(state, log) if takes_key(event)]
