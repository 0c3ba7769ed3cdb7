"""started, exited, worker_lost, absent: who holds an attempt, and how it is taken away."""

import pytest

from runtara.engine.lifecycle import Status, effects
from runtara.protocol.errors import Forbidden, InstanceNotFound, StaleClaim
from runtara.protocol.events import AttemptLost
from runtara.protocol.ids import pooled_worker
from runtara.protocol.records import Absent, Exited, Started
from tests.lifecycle.life import CONTAINER, ENGINE, INSTANCE, RUNNER, TENANT, Life, worker_source


def test_the_first_claim_in_journal_order_wins() -> None:
    life = Life()
    life.start()
    assert life.claim("n1", worker="w1").note == "applied"
    second = life.claim("n2", worker="w2")
    assert (second.note, second.events) == ("stale", ())
    assert isinstance(second.error, StaleClaim)


def test_the_same_claim_again_is_answered_again() -> None:
    life = Life().running()
    assert (life.claim().note, life.claim().error) == ("duplicate", None)


def test_nobody_claims_what_does_not_exist() -> None:
    decision = Life().tell(Started(instance=INSTANCE, attempt=1, nonce="n", worker="w1"), worker_source("w1"))
    assert (decision.note, type(decision.error)) == ("stale", InstanceNotFound)


def test_a_worker_whose_id_names_a_workflow_claims_nothing_of_another() -> None:
    life = Life()
    life.start(workflow="fulfil")
    refused = life.claim("n1", worker=pooled_worker("full"))
    assert (refused.note, refused.events, type(refused.error)) == ("refused", (), Forbidden)
    assert life.claim("n2", worker=pooled_worker("fulfil")).note == "applied"


@pytest.mark.parametrize("attempt", [1, 3])
def test_only_the_queued_attempt_can_be_claimed(attempt: int) -> None:
    life = Life().running()
    life.lose()
    assert life.claim("n2", attempt=attempt).note == "stale"
    assert life.claim("n2", attempt=2).note == "applied"


@pytest.mark.parametrize("leave", ["pause", "cancel"])
def test_a_paused_or_cancelled_instance_cannot_be_claimed(leave: str) -> None:
    life = Life()
    life.start()
    getattr(life, leave)()
    assert life.claim(attempt=1).note == "stale"
    assert effects(life.state).purge == 1


def test_a_restart_that_is_not_due_cannot_be_claimed() -> None:
    life = Life().running()
    life.lose()
    life.claim("n2")
    life.lose()
    assert life.claim("n3").note == "stale"
    assert effects(life.state).run_request is None
    life.fire()
    assert life.claim("n3").note == "applied"


def test_the_same_worker_with_a_new_nonce_has_started_again() -> None:
    life = Life().running()
    life.step("a")
    life.claim("n2", attempt=1)
    assert life.types[-3:] == ["AttemptLost", "InstanceQueued", "AttemptStarted"]
    assert life.state.claim is not None
    assert (life.state.claim.nonce, life.state.claim.attempt, life.state.claim.last_seq) == ("n2", 2, 0)
    assert life.claim("n2", attempt=1).note == "duplicate"  # it asks again until it is answered
    assert life.claim("n1", attempt=1).events == ()


def test_starting_again_uses_the_budget_up() -> None:
    life = Life().running()
    for n in range(2, 6):
        assert life.claim(f"n{n}", attempt=n - 1).note == "applied"
    last = life.claim("n6", attempt=5)
    assert life.status is Status.FAILED
    assert isinstance(last.error, StaleClaim)


def test_starting_again_obeys_a_pending_cancel() -> None:
    life = Life().running()
    life.cancel()
    assert life.claim("n2", attempt=1).note == "stale"
    assert life.status is Status.CANCELLED


def reserve(life: Life, nonce: str = "r1", attempt: int = 1) -> str:
    record = Started(instance=INSTANCE, attempt=attempt, nonce=nonce, worker="box", by="runner", token="t1")
    return life.tell(record, RUNNER).note


def container(life: Life, nonce: str, *, attempt: int = 1, token: str | None = "t1") -> str:
    record = Started(instance=INSTANCE, attempt=attempt, nonce=nonce, worker="c1", token=token)
    return life.tell(record, CONTAINER).note


def test_a_container_takes_over_what_its_runner_reserved() -> None:
    life = Life()
    life.start()
    assert reserve(life) == "applied"
    assert life.state.claim is not None
    assert life.state.claim.reserved
    assert container(life, "c-other", token="t2") == "stale"
    assert container(life, "c1") == "applied"
    assert life.state.claim is not None
    assert (life.state.claim.nonce, life.state.claim.attempt, life.state.claim.reserved) == ("c1", 1, False)
    assert reserve(life) == "duplicate"
    assert container(life, "c1") == "duplicate"


def test_nobody_reports_under_a_reservation() -> None:
    life = Life()
    life.start()
    reserve(life)
    assert life.step("a").note == "stale"


def test_a_reservation_without_a_token_cannot_be_taken_over() -> None:
    life = Life()
    life.start()
    life.tell(Started(instance=INSTANCE, attempt=1, nonce="r1", worker="box", by="runner"), RUNNER)
    assert container(life, "c1", token=None) == "stale"


def test_a_container_that_restarts_again_and_again_keeps_its_place() -> None:
    life = Life()
    life.start()
    reserve(life)
    for n in range(1, 4):
        assert container(life, f"c{n}") == "applied"
        life.step(f"k{n}")
    assert life.state.attempt == 3
    assert container(life, "c3") == "duplicate"
    assert container(life, "c1") == "stale"  # of its first life, late
    life.tell(Exited(instance=INSTANCE, attempt=1, worker="box", reason="137"), RUNNER)
    assert life.status is Status.QUEUED


def test_the_container_of_an_older_attempt_is_not_a_restart() -> None:
    life = Life()
    life.start()
    reserve(life)
    container(life, "c1")
    life.lose()
    reserve(life, "r2", attempt=2)
    container(life, "c2", attempt=2)
    assert container(life, "c3", attempt=1) == "stale"


def test_a_container_that_dies_before_it_speaks_counts() -> None:
    life = Life()
    life.start()
    reserve(life)
    life.tell(Exited(instance=INSTANCE, attempt=1, worker="box", reason="1", stderr="ImportError"), RUNNER)
    assert life.state.losses == 1
    lost = next(event for _, event in life.log if isinstance(event, AttemptLost))
    assert "ImportError" in lost.detail


@pytest.mark.parametrize(("attempt", "worker"), [(2, "w1"), (1, "w2")])
def test_an_exit_of_somebody_else_changes_nothing(attempt: int, worker: str) -> None:
    life = Life().running()
    gone = Exited(instance=INSTANCE, attempt=attempt, worker=worker, reason="1")
    assert (life.tell(gone, RUNNER).note, life.status) == ("stale", Status.RUNNING)


def test_an_absent_instance_gets_the_next_attempt() -> None:
    life = Life().running()
    record = Absent(instance=INSTANCE, tenant=TENANT, owner="e", attempt=1, worker="w1")
    life.tell(record, ENGINE)
    assert (life.status, life.state.attempt) == (Status.QUEUED, 2)
    assert life.tell(record, ENGINE).note == "stale"
    assert Life().tell(record, ENGINE).note == "stale"


def exited(attempt: int, **used: int) -> Exited:
    return Exited(instance=INSTANCE, attempt=attempt, worker="box", reason="done", **used)  # type: ignore[arg-type]


def test_what_a_container_used_is_kept_once_also_after_its_end() -> None:
    life = Life()
    life.start()
    reserve(life)
    container(life, "c1")
    life.complete()
    assert life.tell(exited(1, memory_bytes=5, cpu_us=3), RUNNER).note == "applied"
    assert life.types[-2:] == ["InstanceCompleted", "ResourcesUsed"]
    assert life.tell(exited(1, memory_bytes=6, cpu_us=4), RUNNER).note == "stale"
    assert life.status is Status.COMPLETED


def test_what_a_lost_container_used_comes_before_its_loss() -> None:
    life = Life()
    life.start()
    reserve(life)
    life.tell(exited(1, memory_bytes=5), RUNNER)
    assert life.types[-3:] == ["ResourcesUsed", "AttemptLost", "InstanceQueued"]
    assert life.tell(exited(1, memory_bytes=5), RUNNER).note == "stale"


def test_nobody_else_says_what_was_used() -> None:
    life = Life()
    life.start()
    reserve(life)
    container(life, "c1")
    foreign = Exited(instance=INSTANCE, attempt=1, worker="other", reason="", memory_bytes=5)
    assert life.tell(foreign, RUNNER).note == "stale"
    assert life.tell(exited(1), RUNNER).note == "applied"  # without a measure it is a loss alone
    assert "ResourcesUsed" not in life.types
