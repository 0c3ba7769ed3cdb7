"""What a fork takes over, and what it does not."""

import msgspec
import pytest
from msgspec import Raw

from runtara.engine.lifecycle import State, Status, copies, effects, fork_frame, fork_record, outbox_commands
from runtara.engine.lifecycle import evolve as evolved
from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import BadInput, HistoryTooLarge, StartConflict, UnknownKey
from runtara.protocol.events import CompensationInherited, InstanceForked, MemoCopied
from runtara.protocol.ids import FAILED_KEY, TIMEOUT_KEY, UNDO_PREFIX
from runtara.protocol.limits import MAX_FORK_BYTES
from runtara.protocol.records import Compensating, Continued, Custom, Failed, Fork, Unparked
from tests.lifecycle.life import ENGINE, ERROR, INSTANCE, SECOND, TENANT, Life, raw

ANSWER = {"kind": "step", "value": "by hand"}


def taken(life: Life, *, at: str | None = None, edits: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """(key, type) of what a fork of `life` would take over."""
    answers = {key: Carried(raw(value)) for key, value in (edits or {}).items()}
    return [(memo.key, memo.type) for memo in copies(INSTANCE, life.state, life.log, at_key=at, edits=answers)]


def value(life: Life, key: str, edit: str = '"by hand"') -> object:
    """The data of the last thing that is copied under an edited `key`."""
    found = copies(INSTANCE, life.state, life.log, at_key=None, edits={key: Carried(raw(edit))})
    return msgspec.json.decode([memo for memo in found if memo.key == key][-1].data)


def busy() -> Life:
    """One of everything: what is over, what is open, what failed."""
    life = Life().running()
    life.step("a")
    life.report(Custom, key="emitted", name="e")
    life.sleep("nap", 1)
    life.fire()
    life.wait("approval")
    life.signal()
    life.wait("late", "other", seconds=1)
    life.fire()
    life.call("child")
    life.child_done("child")
    life.call("failing")
    life.child_done("failing", status="failed")
    life.fail_step("broken")
    life.fail_step("trying", for_us=SECOND)
    life.sleep("asleep")
    life.wait("waiting", "never")
    life.call("unfinished")
    life.wait("given-up", "never")
    life.report(Unparked, key="given-up")
    life.signal("nobody")
    return life


DONE = [
    ("a", "CheckpointSaved"), ("emitted", "CustomEvent"), ("nap", "SleepStarted"), ("nap", "WaitResolved"),
    ("approval", "WaitStarted"), ("approval", "WaitResolved"), ("late", "WaitStarted"), ("late", "WaitResolved"),
    ("child", "ChildRequested"), ("child", "WaitResolved"),
]  # fmt: skip


def test_what_is_over_is_copied_and_what_is_open_or_failed_is_not() -> None:
    assert taken(busy()) == DONE


def test_copies_have_no_effect_but_to_take_their_keys() -> None:
    fork = busy().forked()
    before: State | None = None
    for _, event in fork.log:
        after = evolved(before, event)
        assert outbox_commands(before, event, after, TENANT, "fork") == []
        before = after
    state = fork.state
    assert (state.waits, state.timers, state.children, state.pending, state.compensations) == ({}, {}, {}, {}, {})
    assert (state.status, state.attempt, state.restarts, state.generation) == (Status.QUEUED, 1, 0, 0)
    assert len(state.keys) == len({key for key, _ in DONE})
    assert effects(state).run_request is not None
    assert not state.is_fresh  # so its code does not begin before it knows them


def test_a_fork_says_where_it_comes_from() -> None:
    life = Life().running()
    life.step("a")
    life.step("b")
    fork = life.forked(at="b", edits={"b": "2"})
    assert fork.log[1][1] == InstanceForked(
        source="source", version=5, source_hash=b"h".hex(), at_key="b", edits=("b",), input_replaced=False
    )
    assert fork.types == ["InstanceCreated", "InstanceForked", "MemoCopied", "MemoCopied", "InstanceQueued"]


def test_at_a_key_only_what_was_recorded_before_it_is_copied() -> None:
    life = busy()
    assert taken(life, at="approval") == DONE[:4]
    assert taken(life, at="a") == []
    assert taken(life, at="waiting") == DONE


def test_a_wait_that_ended_behind_the_key_is_waited_for_again() -> None:
    life = Life().running()
    life.sleep("nap", 1)
    life.step("a")
    life.fire()
    assert taken(life, at="a") == []
    assert taken(life) == [("nap", "SleepStarted"), ("a", "CheckpointSaved"), ("nap", "WaitResolved")]


def test_of_a_step_that_was_tried_several_times_the_first_try_is_where_it_stands() -> None:
    life = Life().running()
    life.fail_step("a", for_us=SECOND)
    life.step("b")
    life.fire()
    life.step("a")
    assert taken(life, at="a") == []
    assert taken(life) == [("b", "CheckpointSaved"), ("a", "CheckpointSaved")]


def test_only_the_current_generation_counts() -> None:
    life = Life().running()
    life.step("old")
    life.report(Continued, input=raw('{"round":2}'))
    life.claim("n2")
    life.step("new")
    assert taken(life) == [("new", "CheckpointSaved")]
    with pytest.raises(UnknownKey, match="'old'"):
        taken(life, at="old")


def test_after_a_retry_what_was_forgotten_is_not_copied() -> None:
    life = Life().running()
    life.call("child")
    life.child_done("child", status="failed")
    life.report(Failed, error=ERROR)
    life.retry()
    life.claim("n2")
    life.call("child")
    assert taken(life) == []
    life.child_done("child")
    assert taken(life) == [("child", "ChildRequested"), ("child", "WaitResolved")]


# answers given by hand


def test_an_answer_replaces_what_was_recorded_and_keeps_what_lies_beside_it() -> None:
    life = Life().running()
    life.report_saved("a", '{"kind":"checkpoint","value":1,"args":"0f"}')
    assert value(life, "a") == {"kind": "checkpoint", "value": "by hand", "args": "0f"}


def test_a_step_that_failed_can_be_answered() -> None:
    life = Life().running()
    life.fail_step("tried", for_us=SECOND)
    life.fire()
    life.fail_step("tried", n=2, for_us=SECOND)
    life.fail_step("broken")
    assert value(life, "tried") == value(life, "broken") == ANSWER
    assert ("broken", "CheckpointSaved") in taken(life, at="tried", edits={"broken": "1"})


@pytest.mark.parametrize(
    ("key", "outcome"),
    [(key, "signal") for key in ("approval", "late", "waiting")]
    + [(key, "child") for key in ("child", "failing", "unfinished")],
)
def test_a_wait_can_be_answered_whatever_became_of_it(key: str, outcome: str) -> None:
    assert value(busy(), key) == {"outcome": outcome, "data": "by hand"}


@pytest.mark.parametrize("key", ["nap", "asleep", "emitted"])
def test_what_has_no_answer_cannot_be_given_one(key: str) -> None:
    with pytest.raises(BadInput, match="no answer that could be set"):
        taken(busy(), edits={key: "1"})


@pytest.mark.parametrize(("asked", "near"), [("aproval", "'approval'"), ("charge", "'charge~3f9a2c1b'"), ("zzz", "")])
def test_an_unknown_key_is_refused_with_what_is_near(asked: str, near: str) -> None:
    life = busy()
    life.step("charge~3f9a2c1b")
    for given in ({"at": asked}, {"edits": {asked: "1"}}):
        with pytest.raises(UnknownKey) as caught:
            taken(life, **given)
        assert near in str(caught.value)
        assert ("did you mean" in str(caught.value)) == bool(near)


# compensations


def trip(*, undone: bool = False) -> Life:
    """Two bookings, each with its undo; maybe undone."""
    life = Life().running()
    for what in ("flight", "hotel"):
        life.report(Compensating, key=what, data=raw("1"))
        life.step(f"book/{what}")
    if undone:
        life.cancel()
        life.suspend(reason="released")
        life.claim("n2")
    return life


def undos(life: Life, *, at: str | None = None, edits: dict[str, str] | None = None) -> list[str]:
    return [key for key, type in taken(life, at=at, edits=edits) if type == CompensationInherited.__name__]


def test_an_undo_is_inherited_if_what_it_may_undo_was_copied() -> None:
    assert undos(trip()) == ["flight", "hotel"]
    assert undos(trip(), at="book/hotel") == ["flight"]
    assert undos(trip(), at="book/flight") == []


def test_an_undo_whose_step_is_answered_by_hand_is_inherited() -> None:
    assert undos(trip(), at="book/hotel", edits={"book/hotel": "1"}) == ["flight", "hotel"]


def test_an_answer_by_hand_further_behind_does_not_keep_an_undo_from_the_step_that_runs_again() -> None:
    assert undos(trip(), at="book/flight", edits={"book/hotel": "1"}) == []


def test_the_step_that_failed_behind_its_undo_registers_it_anew() -> None:
    life = Life().running()
    life.report(Compensating, key="car", data=raw("1"))
    life.fail_step("book/car")
    assert undos(life) == []
    assert undos(life, edits={"book/car": "1"}) == ["car"]


def test_inherited_undos_are_none_of_the_forks_business() -> None:
    fork = trip().forked()
    fork.claim()
    fork.cancel()
    fork.suspend(reason="released")
    assert fork.is_now(Status.CANCELLED)
    assert isinstance(fork.log[2][1], CompensationInherited)


def test_nothing_is_copied_that_the_source_has_undone_or_is_about_to() -> None:
    life = trip(undone=True)
    assert taken(life) == []
    life.step(f"{UNDO_PREFIX}hotel")
    assert taken(life) == []
    assert taken(life, edits={"book/hotel": "1"}) == [("book/hotel", "CheckpointSaved")]
    asked = trip()
    asked.cancel()
    assert taken(asked) == []
    failing = trip()
    failing.report_saved(FAILED_KEY, '{"kind":"decision","value":{"code":"x","message":"y"}}')
    assert taken(failing) == []


def test_what_came_before_the_first_undo_still_holds() -> None:
    life = Life().running()
    life.step("quote")
    life.report(Compensating, key="u", data=raw("1"))
    life.step("charge")
    life.cancel()
    assert taken(life) == [("quote", "CheckpointSaved")]


# what the SDK records for itself


def test_time_begins_anew_and_the_decision_to_fail_is_not_taken_over() -> None:
    life = Life().running()
    life.sleep(TIMEOUT_KEY, 1)
    life.step("a")
    life.fire()
    life.report_saved(FAILED_KEY, '{"kind":"decision","value":{"code":"x","message":"y"}}')
    assert taken(life) == [("a", "CheckpointSaved")]
    with pytest.raises(UnknownKey):
        taken(life, at=TIMEOUT_KEY)


# the fork's own life


def test_a_fork_of_a_fork_takes_over_what_that_has_taken_over() -> None:
    fork = busy().forked()
    assert taken(fork) == DONE
    again = fork.forked(at="approval")
    assert [(event.key, event.type) for _, event in again.log if isinstance(event, MemoCopied)] == DONE[:4]


def test_copied_keys_cannot_be_recorded_again_and_are_forgotten_when_it_continues() -> None:
    fork = busy().forked()
    fork.claim()
    fork.step("a")
    assert fork.types[-2:] == ["AttemptLost", "InstanceQueued"]
    fork.claim("n2")
    fork.report(Continued, input=raw("{}"))
    fork.claim("n3")
    fork.step("a")
    assert fork.types[-1] == "CheckpointSaved"


def test_an_id_that_is_taken_is_a_conflict() -> None:
    life = Life().running()
    decision = life.tell(_record(life), ENGINE)
    assert isinstance(decision.error, StartConflict)
    assert decision.events == ()


def test_too_much_to_copy_is_refused_before_it_is_sent() -> None:
    life = Life().running()
    for n in range(3):
        life.step(f"s{n}", f'"{"x" * (MAX_FORK_BYTES // 3)}"')
    with pytest.raises(HistoryTooLarge, match="8,3"):
        fork_frame(_record(life))


def _record(life: Life) -> Fork:
    request = ForkRequest(id="f-1", instance=INSTANCE, reply="")
    return fork_record(
        TENANT,
        "source",
        state=life.state,
        log=life.log,
        input=Carried(Raw(b"{}")),
        labels={},
        hash=b"",
        request=request,
    )
