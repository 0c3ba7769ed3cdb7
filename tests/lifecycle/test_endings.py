"""Losses, the budget, and the back-off between restarts."""

import pytest

from runtara.engine.lifecycle import Status, effects
from runtara.engine.lifecycle.endings import restart_delay
from runtara.protocol.events import InstanceFailed, InstanceQueued
from runtara.protocol.records import Exited, Options
from tests.lifecycle.life import INSTANCE, RUNNER, SECOND, Life


def crash(life: Life, stderr: str = "") -> None:
    claim = life.state.claim
    assert claim is not None
    life.tell(
        Exited(instance=INSTANCE, attempt=claim.attempt, worker=claim.worker, reason="137", stderr=stderr), RUNNER
    )


def again(life: Life) -> None:
    if life.state.restart_timer is not None:
        life.fire(life.state.restart_timer)
    life.claim(f"n{life.state.attempt}")


@pytest.mark.parametrize(
    ("losses", "seconds"), [(1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 60), (9, 60), (10_000, 60)]
)
def test_the_first_restart_is_at_once_and_later_ones_wait_longer(losses: int, seconds: int) -> None:
    assert restart_delay(losses) == seconds * SECOND


def test_a_workflow_that_crashes_every_time_fails_with_its_last_words() -> None:
    life = Life().running()
    for n in range(5):
        crash(life, stderr=f"MemoryError {n}\x00")
        if life.status is Status.QUEUED:
            again(life)
    assert life.status is Status.FAILED
    failed = life.log[-1][1]
    assert isinstance(failed, InstanceFailed)
    assert "MemoryError 4" in failed.error.message
    assert "\x00" not in failed.error.message
    assert life.state.restarts == 5


def test_the_back_off_is_a_timer_of_its_own() -> None:
    life = Life().running()
    crash(life)
    again(life)
    crash(life)
    queued = life.log[-1][1]
    assert isinstance(queued, InstanceQueued)
    assert queued.not_before_us == life.now + SECOND
    assert list(effects(life.state).timers) == [life.state.version]
    assert effects(life.state).run_request is None
    life.fire()
    assert effects(life.state).run_request is not None
    assert life.types[-1] == "TimerFired"


def test_progress_resets_the_budget() -> None:
    life = Life().running()
    for n in range(20):
        crash(life)
        again(life)
        life.step(f"k{n}")
    assert (life.status, life.state.losses, life.state.restarts) == (Status.RUNNING, 0, 20)


def test_asking_for_the_same_park_again_is_no_progress() -> None:
    life = Life().running()
    life.sleep("s", 3_600)
    for _ in range(5):
        crash(life)
        if life.status is Status.QUEUED:
            again(life)
            assert life.sleep("s").note == "applied"
    assert life.status is Status.FAILED


@pytest.mark.parametrize("budget", [0, 1])
def test_the_budget_is_the_instances_own(budget: int) -> None:
    life = Life().running(options=Options(restarts=budget))
    crash(life)
    assert life.status is Status.FAILED


def test_a_lost_attempt_obeys_a_pending_pause() -> None:
    life = Life().running()
    life.pause()
    crash(life)
    assert life.status is Status.PAUSED
    life.resume()
    assert life.is_now(Status.QUEUED)


def test_a_long_stderr_is_cut_at_its_beginning() -> None:
    life = Life().running()
    crash(life, stderr="x" * 10_000 + "the end")
    lost = next(event for _, event in life.log if type(event).__name__ == "AttemptLost")
    assert lost.detail.endswith("the end")  # type: ignore[union-attr]
    assert len(lost.detail) <= 2_048  # type: ignore[union-attr]
