"""timer_fired, signal, child_done."""

import pytest

from runtara.engine.lifecycle import Status, wakes
from runtara.protocol.errors import IllegalTransition, Malformed, TooManySignals
from runtara.protocol.events import ChildFailed, TimerFired, WaitResolved
from runtara.protocol.records import Signal, TimerDue, Unparked
from tests.lifecycle.life import ENGINE, INSTANCE, SECOND, TENANT, Life, raw


def due(timer: int) -> TimerDue:
    return TimerDue(instance=INSTANCE, tenant=TENANT, owner="e1", timer=timer)


def outcomes(life: Life) -> list[tuple[str | None, str]]:
    return [(event.key, event.outcome) for _, event in life.log if isinstance(event, WaitResolved)]


def suspended_on(*kinds: str) -> Life:
    life = Life().running()
    for kind in kinds:
        match kind:
            case "sleep":
                life.sleep("sleep", 10)
            case "signal":
                life.wait("signal", seconds=60)
            case "retry":
                life.fail_step("retry", for_us=SECOND)
            case "child":
                life.call("child")
    life.suspend(*kinds)
    assert life.state.is_suspended
    return life


def test_a_timer_does_not_fire_before_its_time() -> None:
    life = suspended_on("sleep")
    timer = next(iter(life.state.timers))
    life.now += 10 * SECOND - 1
    assert life.tell(due(timer), ENGINE).note == "stale"
    life.now += 1
    assert life.tell(due(timer), ENGINE).note == "applied"


def test_a_timer_fires_once_and_a_stale_one_never_fires_the_next() -> None:
    life = Life().running()
    life.fail_step("a", for_us=SECOND)
    first = next(iter(life.state.timers))
    life.fire()
    life.fail_step("a", n=2, for_us=3_600 * SECOND)
    assert life.tell(due(first), ENGINE).note == "stale"
    assert len(life.state.timers) == 1


@pytest.mark.parametrize(("kind", "outcome"), [("sleep", "slept"), ("signal", "timeout")])
def test_a_timer_wakes_what_sleeps_on_it(kind: str, outcome: str) -> None:
    life = suspended_on(kind)
    life.fire()
    assert (life.status, life.state.attempt) == (Status.QUEUED, 2)
    assert outcomes(life) == [(kind, outcome)]


def test_the_next_try_of_a_step_is_told_in_its_history() -> None:
    life = suspended_on("retry")
    life.fire()
    assert life.status is Status.QUEUED
    fired = [event for _, event in life.log if isinstance(event, TimerFired)]
    assert [event.key for event in fired] == ["retry"]
    assert outcomes(life) == []


def test_a_resident_instance_is_not_queued_by_a_timer() -> None:
    life = Life().running()
    life.sleep("s")
    life.fire()
    assert life.status is Status.RUNNING
    assert "s" in life.state.unseen


def test_nothing_fires_for_what_does_not_exist_or_has_ended() -> None:
    assert Life().tell(due(4), ENGINE).note == "stale"
    life = Life().running()
    life.sleep("s")
    timer = next(iter(life.state.timers))
    life.complete()
    assert life.fire(timer).note == "stale"


def test_only_what_it_is_blocked_on_wakes_an_instance() -> None:
    life = Life().running()
    life.wait("other")
    life.sleep("s")
    life.suspend("s")
    life.signal()
    assert life.state.is_suspended
    life.fire()
    assert life.status is Status.QUEUED


def test_a_signal_goes_to_the_oldest_wait_of_its_name() -> None:
    life = Life().running()
    life.wait("other", "rejected")
    life.wait("first")
    life.wait("second")
    life.signal()
    assert outcomes(life) == [("first", "signal")]


def test_a_signal_nobody_waits_for_is_kept_in_order() -> None:
    life = Life()
    life.start()
    for n in range(3):
        life.signal(data=str(n))
    assert [bytes(s.data) for s in life.state.pending["approved"]] == [b"0", b"1", b"2"]


def test_a_signal_wakes_what_waits_for_it() -> None:
    life = suspended_on("signal")
    life.signal()
    assert (life.status, life.state.timers) == (Status.QUEUED, {})


def test_the_first_outcome_in_journal_order_counts() -> None:
    life = suspended_on("signal")
    timer = next(iter(life.state.timers))
    life.signal()
    assert life.fire(timer).note == "stale"
    assert outcomes(life) == [("signal", "signal")]


def test_a_signal_to_something_that_ended_is_refused() -> None:
    life = Life().running()
    life.complete()
    assert isinstance(life.signal().error, IllegalTransition)


def test_a_signal_needs_a_legal_name() -> None:
    life = Life().running()
    assert isinstance(life.tell(Signal(id="x", instance=INSTANCE, name="a b")).error, Malformed)


def test_signals_nobody_asks_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "MAX_PENDING_SIGNALS", 2)
    life = Life().running()
    life.signal("x")
    life.signal("y")
    assert isinstance(life.signal("z").error, TooManySignals)
    life.wait("w", "z")
    assert life.signal("z").error is None


def test_signals_nobody_asks_for_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakes, "MAX_PENDING_SIGNAL_BYTES", 10)
    life = Life().running()
    life.signal(data='"0123456789"')  # one always fits
    assert isinstance(life.signal(data="1").error, TooManySignals)


def test_a_child_answers_its_parent_once() -> None:
    life = suspended_on("child")
    child = life.state.children["child"].instance
    life.child_done("child")
    assert (life.status, outcomes(life)) == (Status.QUEUED, [("child", "child")])
    assert life.child_done("child", child=child).note == "stale"


@pytest.mark.parametrize("status", ["failed", "cancelled", "refused"])
def test_a_child_that_fails_resolves_the_wait_with_its_error(status: str) -> None:
    life = suspended_on("child")
    life.child_done("child", status=status)
    failed = next(event for _, event in life.log if isinstance(event, ChildFailed))
    resolved = next(event for _, event in life.log if isinstance(event, WaitResolved))
    assert failed.status == status
    assert resolved.error is not None
    assert life.status is Status.QUEUED


def test_the_end_of_a_child_whose_wait_was_given_up_is_only_noted() -> None:
    life = Life().running()
    life.call("c")
    life.report(Unparked, key="c")
    life.child_done("c")
    assert life.types[-1] == "ChildCompleted"
    assert life.state.children == {}


def test_a_child_that_nobody_asked_for_changes_nothing() -> None:
    life = suspended_on("child")
    assert life.child_done("child", child="somebody-else").note == "stale"
    assert life.child_done("nothing", child="x").note == "stale"


def test_a_failed_parent_keeps_its_childs_end_for_a_retry() -> None:
    life = Life().running()
    life.call("c", on_end="leave")
    life.step("x")
    life.fail_step("bad")
    for _ in range(5):
        life.lose()
        if life.state.timers:
            life.fire()
        if life.status is Status.QUEUED:
            life.claim(f"n{life.state.attempt}")
    assert life.status is Status.FAILED
    assert life.child_done("c").note == "applied"
    assert life.status is Status.FAILED
    life.retry()
    life.claim("again")
    assert life.state.waits == {}


def test_what_resolves_while_paused_does_not_queue() -> None:
    life = suspended_on("signal")
    life.pause()
    life.signal(data="5")
    assert life.status is Status.PAUSED
    life.resume()
    assert life.is_now(Status.QUEUED)


def test_the_data_of_a_signal_is_its_outcome() -> None:
    life = suspended_on("signal")
    life.signal(data='{"by":"ann"}')
    resolved = next(event for _, event in life.log if isinstance(event, WaitResolved))
    assert resolved.data == raw('{"by":"ann"}')
    assert resolved.signal is not None
    assert type(dict(life.log)[resolved.signal]).__name__ == "SignalReceived"
