"""Forks: a new instance that begins where another one stood, or just before one of its keys.

`copies` says what it takes over, from the source's log; `fork` creates it from the record that carries them. Both are
pure. Taken over are outcomes: steps, checkpoints, events of the author's, waits that are over (how they began and
how they ended). What is open or was tried in vain is not, so it is begun or tried anew: a child that has not ended is
another child, since children's ids derive from their parent's.

What the source is to undo stays the source's. A compensation is *inherited* (its key is answered, the fork neither
registers nor runs it) if something recorded after it was taken over, since that may be what it undoes; else the code
that runs again registers it for the fork. An answer given by hand behind the place where the fork begins counts only
if it is the first thing recorded after the compensation: it then stands for what that undoes.

Invariants: copies have no effect but to answer their keys; no answer is taken over that the source has undone.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Literal

import msgspec
from msgspec import Raw

from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import BadInput, HistoryTooLarge, Malformed, StartConflict, UnknownKey
from runtara.protocol.events import (
    AnyEvent,
    CheckpointSaved,
    ChildRequested,
    CompensationAdded,
    CompensationInherited,
    CustomEvent,
    InstanceCreated,
    InstanceForked,
    InstanceQueued,
    MemoCopied,
    SleepStarted,
    StepFailed,
    WaitAbandoned,
    WaitResolved,
    WaitStarted,
    decode_event,
    encode_data,
    memo_of,
)
from runtara.protocol.frames import decode_frame, encode_frame
from runtara.protocol.ids import FAILED_KEY, TIMEOUT_KEY, UNDO_PREFIX
from runtara.protocol.limits import MAX_FORK_BYTES
from runtara.protocol.records import NO_DATA, Copied, Fork

from .decision import Decision, refused
from .memos import OF_UNDOS, is_failure, served
from .starting import start_fault
from .state import State

NEAREST = 3
_STARTS = (SleepStarted, WaitStarted, ChildRequested)
_ENDLESS = 1 << 62
Log = list[tuple[int, AnyEvent]]


def fork(state: State | None, record: Fork) -> Decision:
    """The same command again was answered before it came here."""
    if state is not None:
        return refused(StartConflict(instance=record.instance))
    fault = start_fault(record)
    if fault is not None:
        return refused(fault)
    created = InstanceCreated(
        workflow=record.workflow,
        input=record.input,
        blob=record.blob,
        options=record.options,
        labels=record.labels,
        origin="fork",
    )
    forked = InstanceForked(
        source=record.source,
        version=record.version,
        source_hash=record.source_hash,
        at_key=record.at_key,
        edits=record.edits,
        input_replaced=record.input_replaced,
    )
    memos = tuple(_copy(memo) for memo in record.memos)
    return Decision(events=(created, forked, *memos, InstanceQueued(attempt=1, cause="fork")))


def _copy(memo: Copied) -> AnyEvent:
    if memo.type == CompensationInherited.__name__:
        return CompensationInherited(key=memo.key, data=memo.data)
    return MemoCopied(key=memo.key, type=memo.type, data=memo.data)


def fork_record(
    tenant: str, source: str, *, state: State, log: Iterable[tuple[int, AnyEvent]], input: Carried,
    labels: dict[str, str], hash: bytes, request: ForkRequest,
) -> Fork:  # fmt: skip
    """What `request` asks of `source`, as the record that its fork is created from. `log`: see `copies`; `hash`: of the
    last event. Raises as `copies` does."""
    input_replaced = request.blob is not None or bytes(request.input) != bytes(NO_DATA)
    given = Carried(request.input, request.blob) if input_replaced else input
    edits = {key: Carried(value, request.set_blobs.get(key)) for key, value in request.set.items()}
    return Fork(
        id=request.id,
        instance=request.instance,
        at=request.at,
        reply=request.reply,
        actor=request.actor,
        tenant=tenant,
        workflow=state.workflow,
        input=given.text,
        blob=given.blob,
        options=msgspec.structs.replace(state.options, definition=None) if request.latest else state.options,
        labels=labels if request.labels is None else request.labels,
        source=source,
        version=state.version,
        source_hash=hash.hex(),
        at_key=request.at_key,
        edits=tuple(sorted(edits)),
        input_replaced=input_replaced,
        memos=copies(source, state, log, at_key=request.at_key, edits=edits),
    )


def fork_frame(record: Fork) -> bytes:
    """The message that it is stored as. Raises `HistoryTooLarge`, `Malformed`: who reads it could tell nobody."""
    frame = encode_frame([record])
    if len(frame) > MAX_FORK_BYTES:
        raise HistoryTooLarge(instance=record.source, size=len(frame), limit=MAX_FORK_BYTES)
    _, rejections = decode_frame(frame)
    if rejections:
        raise Malformed(reason=rejections[0].reason)
    return frame


def copies(
    instance: str,
    state: State,
    log: Iterable[tuple[int, AnyEvent]],
    *,
    at_key: str | None,
    edits: Mapping[str, Carried],
) -> tuple[Copied, ...]:
    """What a fork of `instance` takes over from `log`, its events with a key in order; `edits`: answers given by hand.

    Of what lies behind the first event of `at_key`, only the edited keys are needed, and `FAILED_KEY`.
    Raises `UnknownKey`, and `BadInput` for an answer that cannot be given by hand.
    """
    events = [(version, event) for version, event in map(_unwrapped, log) if version > state.floor and _is_users(event)]
    first = _first(events)
    for key in (*edits, *([at_key] if at_key is not None else [])):
        if key not in first:
            raise unknown_key(instance, key, first)
    end = min(_undone_from(state, events), first[at_key] if at_key is not None else _ENDLESS)
    current = [(version, event) for version, event in served(state, events) if event.key is not None]
    recorded = [(v, event) for v, event in current if v < end and event.key not in edits]
    kept = _outcomes(recorded)
    for key, value in edits.items():
        kept += _edited(key, value, [(v, event) for v, event in events if event.key == key])
    answered = [version for version, _ in kept if version < end]
    undos: Log = [(v, event) for v, event in current if isinstance(event, OF_UNDOS) and v < end]
    kept += _inherited(undos, answered, first, edits)
    return tuple(copied for _, copied in sorted(kept, key=lambda one: one[0]))


def unknown_key(instance: str, key: str, recorded: Iterable[str]) -> UnknownKey:
    """The error, with what may have been meant: keys that hold what was given, then those that are spelled alike."""
    keys = list(recorded)
    close = get_close_matches(key, keys, n=NEAREST)
    near = list(dict.fromkeys([*(one for one in keys if key and key in one), *close]))[:NEAREST]
    hint = f" (did you mean {', '.join(map(repr, near))}?)" if near else ""
    return UnknownKey(instance=instance, key=key, hint=hint)


def _undone_from(state: State, events: Log) -> int:
    """The version of the first compensation, if the source undoes what it did, or has: nothing after it still stands.

    It may have decided to (`FAILED_KEY`) though none has begun.
    """
    begun = state.undone or state.mode == "cancelling" or state.cancel is not None
    if not state.compensations or not (begun or any(event.key == FAILED_KEY for _, event in events)):
        return _ENDLESS
    return min(state.compensations.values())


def _unwrapped(entry: tuple[int, AnyEvent]) -> tuple[int, AnyEvent]:
    """A fork of a fork takes over what that has taken over."""
    version, event = entry
    if not isinstance(event, MemoCopied):
        return entry
    type, data = memo_of(MemoCopied.__name__, encode_data(event))
    return version, decode_event(type, event.key, bytes(data))


def _is_users(event: AnyEvent) -> bool:
    """Not what the SDK records for itself: the time-out begins anew, and what was undone is not undone in the fork."""
    key = event.key
    return key is not None and key != TIMEOUT_KEY and not key.startswith(UNDO_PREFIX)


def _first(events: Log) -> dict[str, int]:
    """Where each key was first recorded. Compensations have keys of their own kind."""
    first: dict[str, int] = {}
    for version, event in events:
        if not isinstance(event, OF_UNDOS) and event.key != FAILED_KEY:
            first.setdefault(event.key or "", version)
    return first


def _outcomes(events: Log) -> list[tuple[int, Copied]]:
    """What answers keys for good; a wait as the two events that it is."""
    starts: dict[str, tuple[int, AnyEvent]] = {}
    ended: dict[str, list[tuple[int, Copied]]] = {}
    for version, event in events:
        key = event.key or ""
        match event:
            case SleepStarted() | WaitStarted() | ChildRequested():
                starts[key] = (version, event)
            case WaitResolved() if not is_failure(event) and key in starts:
                ended[key] = [_copied(*starts[key]), _copied(version, msgspec.structs.replace(event, signal=None))]
            case WaitAbandoned():
                ended.pop(key, None)
            case CheckpointSaved() | CustomEvent() if key != FAILED_KEY:
                ended.setdefault(key, [_copied(version, event)])
            case _:
                pass
    return [one for pair in ended.values() for one in pair]


def _copied(version: int, event: AnyEvent) -> tuple[int, Copied]:
    return version, Copied(key=event.key or "", type=type(event).__name__, data=Raw(encode_data(event)))


def _edited(key: str, value: Carried, events: Log) -> list[tuple[int, Copied]]:
    """The answer `value` under `key`, of the kind that the source asked for: the last event says which."""
    version = events[0][0]
    match _asked(event for _, event in events):
        case WaitStarted() | ChildRequested() as wait:
            kind: Literal["signal", "child"] = "signal" if isinstance(wait, WaitStarted) else "child"
            outcome = WaitResolved(key=key, outcome=kind, data=value.text, blob=value.blob)
            return [_copied(version, wait), _copied(version, outcome)]
        case CheckpointSaved() as saved:
            return [_copied(version, CheckpointSaved(key=key, data=_with_value(key, saved.data, value)))]
        case StepFailed() as failed:
            step = {"kind": Raw(b'"step"'), **_named(value)}
            digest = failed.error.attributes.get("digest")  # of its arguments, as the SDK keeps it beside a failure
            if isinstance(digest, str) and digest:
                step["args"] = Raw(msgspec.json.encode(digest))
            return [_copied(version, CheckpointSaved(key=key, data=Raw(msgspec.json.encode(step))))]
        case SleepStarted():
            raise BadInput(reason=f"the key {key!r} is a sleep, which has no answer that could be set")
        case _:
            raise BadInput(reason=f"the key {key!r} has no answer that could be set: it is no step, signal or child")


def _asked(events: Iterable[AnyEvent]) -> AnyEvent | None:
    """What says best of which kind an operation is: how its last wait began, its result, its failure."""
    kinds: dict[int, AnyEvent] = {}
    for event in events:
        for place, types in enumerate((_STARTS, (CheckpointSaved,), (StepFailed,))):
            if isinstance(event, types):
                kinds[place] = event
    return kinds[min(kinds)] if kinds else None


def _with_value(key: str, data: Raw, value: Carried) -> Raw:
    try:
        fields = msgspec.json.decode(data, type=dict[str, Raw])
    except msgspec.MsgspecError as exc:
        raise BadInput(reason=f"the key {key!r} was not recorded by a step or a checkpoint") from exc
    rest = {name: field for name, field in fields.items() if name not in ("value", "blob")}
    return Raw(msgspec.json.encode({**rest, **_named(value)}))


def _named(value: Carried) -> dict[str, Raw]:
    """As it stands in the outcome of a step or a checkpoint."""
    if value.blob is None:
        return {"value": value.text}
    return {"blob": Raw(msgspec.json.encode(value.blob))}


def _inherited(
    undos: Log, answered: list[int], first: Mapping[str, int], edits: Mapping[str, Carried]
) -> list[tuple[int, Copied]]:
    """Of the compensations registered before the place where the fork begins, those that stay the source's."""
    last = max(answered, default=0)
    keys = sorted((version, key) for key, version in first.items())
    versions = [version for version, _ in keys]
    found = []
    for version, event in undos:
        assert isinstance(event, CompensationAdded | CompensationInherited)
        behind = bisect_right(versions, version)
        by_hand = behind < len(keys) and keys[behind][1] in edits
        if last > version or by_hand:
            copied = Copied(key=event.key or "", type=CompensationInherited.__name__, data=event.data)
            found.append((version, copied))
    return found
