"""decide raises for no input, whatever the state and whatever the record holds."""

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from runtara.engine.lifecycle import State, check_envelope, decide, evolve
from runtara.protocol.blobs import Blob
from runtara.protocol.errors import RuntaraError, WireError
from runtara.protocol.records import AnyRecord, ChildRequest, Copied, Options, Parent, Record
from tests.lifecycle.life import CLIENT, CONTAINER, ENGINE, INSTANCE, RUNNER, SECOND, Life, worker_source

TYPES: tuple[type[Record], ...] = get_args(AnyRecord)
KEYS = st.sampled_from(["a", "s", "w", "c", "~undo/u", "new"])
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 2**63, -(10**30), 10**30])
SOURCES = st.sampled_from([CLIENT, ENGINE, RUNNER, CONTAINER, worker_source("w1"), worker_source("w2")])
WORDS = st.sampled_from(["n1", "w1", "approved", "", "a.b", "\x00", "x" * 3_000, "s1"])
RAWS = st.sampled_from([Raw(b"{}"), Raw(b"null"), Raw(b'"\\u0000"'), Raw(b"not json")])
ERRORS = st.builds(WireError, code=WORDS, message=WORDS)
OPTIONS = st.builds(Options, runner=WORDS, restarts=NUMBERS)
REQUESTS = st.builds(ChildRequest, workflow=WORDS, instance=st.none() | WORDS, input=RAWS)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "instance": st.just(INSTANCE),
    "key": KEYS,
    "keys": st.lists(KEYS).map(tuple),
    "attempt": NUMBERS,
    "seq": NUMBERS,
    "n": NUMBERS,
    "at": NUMBERS,
    "timer": NUMBERS,
    "done": NUMBERS,
    "for_us": st.none() | NUMBERS,
    "until_us": st.none() | NUMBERS,
    "total": st.none() | NUMBERS,
    "nonce": st.sampled_from(["n1", "n2"]),
    "worker": st.sampled_from(["w1", "w2"]),
    "input": RAWS,
    "data": RAWS,
    "result": RAWS,
    "blob": st.none() | st.builds(Blob, hash=st.just("0" * 64), size=NUMBERS),
    "error": ERRORS,
    "options": st.none() | OPTIONS,
    "labels": st.dictionaries(WORDS, WORDS),
    "child": st.none() | REQUESTS,
    "version": NUMBERS,
    "edits": st.lists(KEYS).map(tuple),
    "memos": st.lists(st.builds(Copied, key=KEYS, type=WORDS, data=RAWS)).map(tuple),
    "parent": st.none() | st.builds(Parent, instance=WORDS, key=WORDS),
}


def strategy(cls: type[Record]) -> st.SearchStrategy[Any]:
    """Records of `cls` with every field that a decoder would let through, and some that it would not."""
    fields = {}
    for field in msgspec.structs.fields(cls):
        options = get_args(field.type)
        if field.name == "child" and field.type is str:
            fields["child"] = WORDS
        elif options and all(isinstance(option, str) for option in options):
            fields[field.name] = st.sampled_from(options)
        else:
            fields[field.name] = FIELDS.get(field.name, WORDS)
    return st.builds(cls, **fields)


def sleeping() -> Life:
    life = Life().running()
    life.sleep("s")
    life.wait("w")
    life.suspend("s", "w")
    return life


def ended(how: Callable[[Life], object]) -> Life:
    life = Life().running()
    life.call("c")
    how(life)
    return life


def busy() -> Life:
    life = Life().running()
    life.step("a")
    life.sleep("s")
    life.wait("w")
    life.call("c")
    life.compensate("u")
    life.fail_step("f", for_us=SECOND)
    life.signal("approved")
    return life


def after(life: Life, act: Callable[[Life], object]) -> Life:
    act(life)
    return life


STATES: dict[str, State | None] = {
    "nothing": None,
    "queued": after(Life(), lambda life: life.start()).state,
    "running": Life().running().state,
    "busy": busy().state,
    "pausing": after(busy(), Life.pause).state,
    "cancelling": after(busy(), Life.cancel).state,
    "to undo": after(after(busy(), Life.cancel), Life.lose).state,
    "sleeping": sleeping().state,
    "paused": after(sleeping(), Life.pause).state,
    "completed": ended(Life.complete).state,
    "cancelled": ended(lambda life: (life.cancel(), life.lose())).state,
    "unloaded": msgspec.json.decode(msgspec.json.encode(busy().state), type=State),
}


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decide_answers_any_record_in_any_state(cls: type[Record], data: st.DataObject) -> None:
    record, source = data.draw(strategy(cls)), data.draw(SOURCES)
    state = STATES[data.draw(st.sampled_from(sorted(STATES)))]
    decision = decide(state, record, data.draw(st.sampled_from([0, 10**15])), source=source)
    for event in decision.events:
        state = evolve(state, event)
    assert decision.note in ("applied", "duplicate", "stale", "refused")
    assert decision.error is None or isinstance(decision.error, RuntaraError)
    assert decision.note != "refused" or decision.error is not None
    if state is not None:
        msgspec.json.encode(state)


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_envelope_answers_any_record_from_any_source(cls: type[Record], data: st.DataObject) -> None:
    error = check_envelope(data.draw(strategy(cls)), data.draw(SOURCES), data.draw(st.integers(0, 3)), 4)
    assert error is None or isinstance(error, RuntaraError)
