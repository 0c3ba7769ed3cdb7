"""pause, resume, cancel, retry."""

import pytest

from runtara.engine.lifecycle import Status, effects
from runtara.protocol.errors import IllegalTransition, InstanceNotFound
from runtara.protocol.events import CheckpointSaved, InstanceCancelled
from runtara.protocol.ids import FAILED_KEY, UNDO_PREFIX
from runtara.protocol.limits import CANCEL_GRACE_SECONDS
from runtara.protocol.records import Cancel, Cancelled, Failed
from tests.lifecycle.life import ERROR, INSTANCE, SECOND, Life


def sleeping() -> Life:
    life = Life().running()
    life.sleep("s")
    life.suspend("s")
    return life


@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "retry", "signal"])
def test_nothing_is_asked_of_what_does_not_exist(command: str) -> None:
    assert isinstance(getattr(Life(), command)().error, InstanceNotFound)


def test_a_running_instance_is_asked_to_pause() -> None:
    life = Life().running()
    life.pause()
    assert (life.status, life.state.pause) == (Status.RUNNING, True)
    assert life.pause().note == "duplicate"


def test_what_does_not_run_is_paused_at_once() -> None:
    queued, asleep = Life(), sleeping()
    queued.start()
    queued.pause()
    asleep.pause()
    assert (queued.status, asleep.status) == (Status.PAUSED, Status.PAUSED)
    assert asleep.state.awaiting == ("s",)


def test_a_resumed_sleeper_goes_back_to_sleep_with_its_old_deadline() -> None:
    life = sleeping()
    timers = life.state.timers
    life.pause()
    life.resume()
    assert (life.status, life.state.timers, life.state.attempt) == (Status.SLEEPING, timers, 1)
    life.fire()
    assert life.status is Status.QUEUED


def test_a_resumed_sleeper_whose_time_has_come_is_queued() -> None:
    life = sleeping()
    life.pause()
    life.fire()
    assert life.status is Status.PAUSED
    life.resume()
    assert (life.status, life.state.attempt) == (Status.QUEUED, 2)


def test_a_pause_can_be_taken_back_before_it_is_obeyed() -> None:
    life = Life().running()
    life.pause()
    life.resume()
    assert (life.status, life.state.pause) == (Status.RUNNING, False)
    assert isinstance(life.resume().error, IllegalTransition)


def test_a_pause_ends_the_wait_for_a_restart() -> None:
    life = Life().running()
    life.lose()
    life.claim("n2")
    life.lose()
    life.pause()
    assert life.state.timers == {}
    life.resume()
    assert effects(life.state).run_request is not None


@pytest.mark.parametrize("build", [sleeping, lambda: started_only()])
def test_a_cancel_acts_at_once_on_what_does_not_run(build: object) -> None:
    life = build()  # type: ignore[operator]
    life.cancel("enough")
    assert life.status is Status.CANCELLED
    cancelled = life.log[-1][1]
    assert isinstance(cancelled, InstanceCancelled)
    assert cancelled.reason == "enough"
    assert life.state.timers == {}


def started_only() -> Life:
    life = Life()
    life.start()
    return life


def test_a_running_instance_has_a_grace_to_stop() -> None:
    life = Life().running()
    life.cancel()
    (timer,) = life.state.timers.values()
    assert (timer.purpose, timer.due_us) == ("grace", life.now + CANCEL_GRACE_SECONDS * SECOND)
    life.fire()
    assert (life.status, life.state.losses) == (Status.CANCELLED, 0)


def test_it_stops_by_itself_within_the_grace() -> None:
    life = Life().running()
    life.cancel()
    life.report(Cancelled, reason="asked")
    assert (life.status, life.state.timers) == (Status.CANCELLED, {})


@pytest.mark.parametrize("leave", ["lose", "suspend", "fire"])
def test_with_something_to_undo_it_is_queued_to_do_so(leave: str) -> None:
    life = Life().running()
    life.compensate("refund")
    life.cancel()
    if leave == "suspend":
        life.suspend(reason="parked")
    else:
        getattr(life, leave)()
    assert (life.status, life.state.mode) == (Status.QUEUED, "cancelling")
    life.claim("n2")
    life.step("~undo/refund")
    life.report(Cancelled)
    assert life.status is Status.CANCELLED


def test_the_reason_of_a_cancel_is_kept_until_it_is_undone() -> None:
    life = Life().running()
    life.compensate("refund")
    life.cancel("enough")
    life.suspend(reason="released")
    life.claim("n2")
    life.report(Cancelled)  # by another attempt, which was not told why
    cancelled = life.log[-1][1]
    assert isinstance(cancelled, InstanceCancelled)
    assert cancelled.reason == "enough"


def test_a_sleeper_with_something_to_undo_is_woken_by_the_cancel() -> None:
    life = Life().running()
    life.compensate("refund")
    life.sleep("s")
    life.suspend("s")
    life.cancel()
    assert (life.status, life.state.mode) == (Status.QUEUED, "cancelling")


def test_a_cancel_beats_a_pause_and_cannot_be_paused() -> None:
    life = Life().running()
    life.pause()
    life.cancel()
    assert isinstance(life.pause().error, IllegalTransition)
    assert isinstance(life.resume().error, IllegalTransition)
    life.suspend(reason="pause")
    assert life.status is Status.CANCELLED


def crash_until_it_ends(life: Life) -> int:
    """Every attempt is lost before it records anything; how many there were."""
    for n in range(20):
        if life.status.is_terminal:
            return n
        if life.status is Status.QUEUED:
            if life.state.timers:
                life.fire()
            life.claim(f"c{n}")
        life.lose()
    raise AssertionError("it goes on for ever")


def test_an_instance_that_used_up_its_budget_is_undone_before_it_fails() -> None:
    life = Life().running()
    life.compensate("refund")
    for n in range(life.state.options.restarts):
        if n:
            if life.state.timers:
                life.fire()
            life.claim(f"m{n}")
        life.lose()
    assert life.status is Status.QUEUED, "its compensations run first"
    assert not life.state.timers, "at once"
    decided = [event for _, event in life.log if isinstance(event, CheckpointSaved) and event.key == FAILED_KEY]
    assert b"AttemptsLost" in bytes(decided[0].data)
    life.claim("undo")
    life.step(f"{UNDO_PREFIX}refund")
    life.report(Failed, error=ERROR)
    assert life.is_now(Status.FAILED)
    assert isinstance(life.retry().error, IllegalTransition)


def test_compensations_that_crash_every_time_fail_the_instance() -> None:
    life = Life().running()
    life.compensate("refund")
    life.cancel()
    crash_until_it_ends(life)
    assert life.status is Status.FAILED


def test_undoing_has_a_budget_of_its_own_and_then_the_instance_fails_as_it_is() -> None:
    life = Life().running()
    life.compensate("refund")
    attempts = crash_until_it_ends(life)
    assert life.status is Status.FAILED
    assert attempts == 2 * life.state.options.restarts
    assert len([event for _, event in life.log if isinstance(event, CheckpointSaved)]) == 1


def test_cancelling_twice_changes_nothing() -> None:
    life = Life().running()
    life.cancel()
    assert life.cancel().note == "duplicate"
    life.lose()
    assert life.cancel().note == "duplicate"
    done = Life().running()
    done.complete()
    assert isinstance(done.cancel().error, IllegalTransition)


def failed() -> Life:
    life = Life().running()
    life.step("good")
    life.fail_step("bad")
    life.report(Failed, error=ERROR)
    return life


def test_a_retry_forgets_failures_and_nothing_else() -> None:
    life = failed()
    life.retry()
    assert (life.status, life.state.attempt) == (Status.QUEUED, 2)
    life.claim("n2")
    assert life.step("bad").note == "applied"
    assert life.step("good").note == "refused"


def test_a_second_retry_keeps_what_the_first_made_good() -> None:
    life = failed()
    life.retry()
    life.claim("n2")
    life.step("bad")
    life.report(Failed, error=ERROR)
    life.retry()
    life.claim("n3")
    assert life.step("bad").note == "refused"


def test_a_retry_waits_on_for_what_was_open() -> None:
    life = Life().running()
    life.sleep("s")
    life.report(Failed, error=ERROR)
    assert life.state.timers == {}
    life.retry()
    life.claim("n2")
    life.suspend("s")
    assert life.status is Status.SLEEPING
    life.fire()
    assert life.is_now(Status.QUEUED)


def test_a_retry_starts_another_child_for_one_that_was_cancelled_with_its_parent() -> None:
    life = Life().running()
    life.call("c")
    first = life.state.children["c"].instance
    life.report(Failed, error=ERROR)
    life.retry()
    life.claim("n2")
    life.call("c")
    assert life.state.children["c"].instance != first
    assert life.child_done("c", status="cancelled", child=first).note == "stale"


def test_a_cancelled_instance_can_be_retried() -> None:
    life = sleeping()
    life.cancel()
    life.retry()
    assert (life.status, life.state.cancel, life.state.mode) == (Status.QUEUED, None, "normal")


def test_after_compensations_there_is_no_retry() -> None:
    life = Life().running()
    life.compensate("refund")
    life.step("~undo/refund")
    life.report(Failed, error=ERROR)
    refused = life.retry()
    assert isinstance(refused.error, IllegalTransition)
    assert "fork" in str(refused.error)


def test_only_what_failed_or_was_cancelled_can_be_retried() -> None:
    life = Life().running()
    assert isinstance(life.retry().error, IllegalTransition)
    life.complete()
    assert isinstance(life.retry().error, IllegalTransition)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_has_ended_is_not_paused_or_resumed(command: str) -> None:
    life = Life().running()
    life.complete()
    error = getattr(life, command)().error
    assert isinstance(error, IllegalTransition)
    assert "completed" in str(error)


def test_a_parent_that_ends_cancels_its_children() -> None:
    life = sleeping()
    decision = life.tell(Cancel(id="o-1", instance=INSTANCE, reason="its parent p has ended"))
    assert decision.note == "applied"
    assert life.status is Status.CANCELLED
