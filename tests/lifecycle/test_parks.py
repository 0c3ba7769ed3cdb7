"""parked, unparked, suspended."""

from typing import Any

import pytest

from runtara.engine.lifecycle import Status
from runtara.protocol.errors import DuplicateKey, Malformed
from runtara.protocol.events import ChildRequested, InstancePaused, InstanceSuspended, SleepStarted, WaitResolved
from runtara.protocol.ids import child_id
from runtara.protocol.records import ChildRequest, Continued, Parked, Unparked
from tests.lifecycle.life import INSTANCE, SECOND, Life, raw


def resolved(life: Life) -> list[WaitResolved]:
    return [event for _, event in life.log if isinstance(event, WaitResolved)]


def test_a_sleep_gets_its_deadline_from_the_journals_clock() -> None:
    life = Life().running()
    life.sleep("s", 10)
    started = life.log[-1][1]
    assert isinstance(started, SleepStarted)
    assert started.due_us == life.now + 10 * SECOND
    assert list(life.state.timers) == [life.state.version]


@pytest.mark.parametrize("fields", [{"for_us": 0}, {"for_us": -5}, {"until_us": 0}])
def test_a_sleep_that_is_over_already_resolves_at_once(fields: dict[str, int]) -> None:
    life = Life().running()
    life.report(Parked, key="s", kind="sleep", **fields)
    assert [event.outcome for event in resolved(life)] == ["slept"]
    assert life.state.timers == {}


def test_a_deadline_beyond_any_calendar_is_bounded() -> None:
    life = Life().running()
    life.report(Parked, key="s", kind="sleep", for_us=10**40)
    assert max(t.due_us for t in life.state.timers.values()) < 2**63


def test_asking_again_does_not_move_the_deadline() -> None:
    life = Life().running()
    life.sleep("s", 10)
    due = life.state.waits["s"].due_us
    life.now += SECOND
    assert life.sleep("s", 99).note == "applied"
    assert life.state.waits["s"].due_us == due
    assert len(life.state.timers) == 1


@pytest.mark.parametrize("kind", ["signal", "child"])
def test_asking_again_for_something_else_is_refused(kind: str) -> None:
    life = Life().running()
    life.sleep("s")
    child = ChildRequest(workflow="w")
    again = life.report(Parked, key="s", kind=kind, name="n", child=child)
    assert isinstance(again.error, DuplicateKey)
    assert life.status is Status.QUEUED


@pytest.mark.parametrize("kind", ["sleep", "wait", "call"])
def test_asking_again_while_the_outcome_is_on_its_way_changes_nothing(kind: str) -> None:
    life = Life().running()
    getattr(life, kind)("k")
    match kind:
        case "sleep":
            life.fire()
        case "wait":
            life.signal()
        case "call":
            life.child_done("k")
    assert getattr(life, kind)("k").note == "applied"
    assert (life.state.waits, life.state.timers, len(resolved(life))) == ({}, {}, 1)


def test_an_outcome_that_the_claim_was_told_cannot_be_asked_for_again() -> None:
    life = Life().running()
    life.sleep("s")
    life.fire()
    life.lose()
    life.claim("n2")
    assert isinstance(life.sleep("s").error, DuplicateKey)


def test_a_step_that_waited_for_its_next_try_may_park_under_its_key() -> None:
    life = Life().running()
    life.fail_step("a", for_us=SECOND)
    life.sleep("a", 5)
    assert [timer.purpose for timer in life.state.timers.values()] == ["sleep"]


def test_a_wait_takes_the_oldest_pending_signal() -> None:
    life = Life().running()
    life.signal(data="1")
    life.signal(data="2")
    life.wait("w")
    outcome = resolved(life)[0]
    assert (outcome.outcome, bytes(outcome.data)) == ("signal", b"1")
    assert [bytes(s.data) for s in life.state.pending["approved"]] == [b"2"]


def test_a_wait_without_time_and_signal_times_out_at_once() -> None:
    life = Life().running()
    life.wait("w", seconds=0)
    assert [event.outcome for event in resolved(life)] == ["timeout"]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sleep"},
        {"kind": "signal"},
        {"kind": "signal", "name": "a.b"},
        {"kind": "child"},
        {"kind": "child", "child": ChildRequest(workflow="a.b")},
        {"kind": "child", "child": ChildRequest(workflow="w", instance="a.b")},
    ],
)
def test_a_park_that_nothing_could_end_is_refused(fields: dict[str, Any]) -> None:
    life = Life().running()
    assert isinstance(life.report(Parked, key="k", **fields).error, Malformed)


def test_a_childs_id_comes_from_its_cause() -> None:
    life = Life().running()
    life.call("c")
    assert life.state.children["c"].instance == child_id(INSTANCE, "c")


def test_a_later_generation_starts_other_children() -> None:
    life = Life().running()
    life.call("c")
    first = life.state.children["c"].instance
    life.report(Continued, input=raw("{}"))
    life.claim("n2")
    life.call("c")
    assert life.state.children["c"].instance != first


def test_asking_again_for_a_child_names_the_same_one() -> None:
    life = Life().running()
    life.call("c")
    life.call("c")
    asked = [event.child for _, event in life.log if isinstance(event, ChildRequested)]
    assert len(asked) == 2
    assert len(set(asked)) == 1


def test_giving_a_wait_up_closes_it() -> None:
    life = Life().running()
    life.wait("w", seconds=5)
    life.report(Unparked, key="w")
    assert (life.state.waits, life.state.timers) == ({}, {})
    life.signal()
    assert resolved(life) == []


def test_a_signal_goes_back_to_the_front_when_its_wait_was_given_up() -> None:
    life = Life().running()
    life.wait("w")
    life.signal(data="1")
    life.signal(data="2")
    life.report(Unparked, key="w")
    assert [bytes(s.data) for s in life.state.pending["approved"]] == [b"1", b"2"]


def test_a_signal_that_came_back_goes_to_the_next_wait_for_it() -> None:
    life = Life().running()
    life.wait("w1")
    life.wait("w2")
    life.signal(data="1")
    life.report(Unparked, key="w1")
    assert [(e.key, bytes(e.data)) for e in resolved(life)] == [("w1", b"1"), ("w2", b"1")]
    assert life.state.pending == {}


def test_an_outcome_that_the_claim_was_told_cannot_be_given_up() -> None:
    life = Life().running()
    life.wait("w")
    life.signal()
    life.lose()
    life.claim("n2")
    assert isinstance(life.report(Unparked, key="w").error, Malformed)


def test_suspended_on_time_alone_is_sleeping_else_waiting() -> None:
    life = Life().running()
    life.sleep("s")
    life.fail_step("a", for_us=SECOND)
    life.suspend("s", "a")
    assert life.status is Status.SLEEPING
    other = Life().running()
    other.sleep("s")
    other.wait("w")
    other.suspend("s", "w", "w")
    assert other.status is Status.WAITING
    suspended = other.log[-1][1]
    assert isinstance(suspended, InstanceSuspended)
    assert suspended.keys == ("s", "w")


def test_one_that_was_decided_while_it_left_is_queued_at_once() -> None:
    life = Life().running()
    life.sleep("s")
    life.wait("w")
    life.signal()
    life.suspend("s", "w")
    assert (life.status, life.state.attempt, life.state.losses) == (Status.QUEUED, 2, 0)


def test_a_retry_that_fell_due_while_it_left_is_queued_at_once() -> None:
    life = Life().running()
    life.fail_step("a", for_us=SECOND)
    life.fire()
    life.suspend("a")
    assert (life.status, life.state.losses) == (Status.QUEUED, 0)


@pytest.mark.parametrize("keys", [(), ("nothing",)])
def test_nothing_is_suspended_with_nothing_to_wake_it(keys: tuple[str, ...]) -> None:
    life = Life().running()
    life.suspend(*keys)
    assert (life.status, life.state.losses) == (Status.QUEUED, 1)


def test_a_stale_pause_queues_it_again() -> None:
    life = Life().running()
    life.pause()
    life.resume()
    life.suspend(reason="pause")
    assert (life.status, life.state.losses) == (Status.QUEUED, 0)


@pytest.mark.parametrize("reason", ["pause", "parked", "released", "self"])
def test_a_pending_pause_is_obeyed_however_it_leaves(reason: str) -> None:
    life = Life().running()
    life.wait("w")
    life.pause()
    life.suspend("w", reason=reason)
    assert life.status is Status.PAUSED
    paused = life.log[-1][1]
    assert isinstance(paused, InstancePaused)
    assert paused.keys == ("w",)
    assert not life.state.pause


def test_a_hand_over_is_free() -> None:
    life = Life().running(options=None)
    for n in range(2, 12):
        life.suspend(reason="released")
        life.claim(f"n{n}")
    assert (life.status, life.state.losses, life.state.attempt) == (Status.RUNNING, 0, 11)


@pytest.mark.parametrize("reason", ["pause", "parked", "self"])
def test_what_was_decided_while_it_left_for_a_pause_is_not_slept_over_when_it_is_resumed(reason: str) -> None:
    life = Life().running()
    life.wait("w")
    life.sleep("s")
    life.pause()
    life.signal()  # "w" is resolved; the code, which is leaving, does not see it
    life.suspend("w", "s", reason=reason)
    assert life.is_now(Status.PAUSED)
    life.resume()
    assert life.is_now(Status.QUEUED)


def test_a_low_level_script_pauses_itself() -> None:
    life = Life().running()
    life.suspend(reason="self")
    assert life.status is Status.PAUSED
    life.resume()
    assert life.is_now(Status.QUEUED)


def test_what_is_being_cancelled_cannot_be_suspended_but_handed_over() -> None:
    life = Life().running()
    life.compensate("u")
    life.cancel()
    life.suspend(reason="pause")
    assert (life.status, life.state.mode) == (Status.QUEUED, "cancelling")
    life.claim("n2")
    life.suspend(reason="released")
    assert (life.status, life.state.mode, life.state.losses) == (Status.QUEUED, "cancelling", 0)
    life.claim("n3")
    life.sleep("~undo/s")
    life.suspend("~undo/s")
    assert (life.status, life.state.mode, life.state.losses) == (Status.QUEUED, "cancelling", 1)
