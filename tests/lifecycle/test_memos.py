"""Which events answer keys, and which keys are taken."""

from runtara.engine.lifecycle import KeySet, key_hash, recorded_keys, served
from runtara.protocol.records import Continued, Failed, Unparked
from tests.lifecycle.life import ERROR, SECOND, Life, raw


def keys(life: Life) -> set[int]:
    return set(recorded_keys(life.state, life.log))


def test_the_log_gives_back_the_keys_of_a_running_instance() -> None:
    life = Life().running()
    life.step("a")
    life.sleep("s")
    life.wait("w")
    life.report(Unparked, key="w")
    life.call("c")
    life.compensate("a")
    life.fail_step("open", for_us=SECOND)
    life.fail_step("final")
    assert KeySet.of(keys(life)) == life.state.keys
    assert keys(life) == {key_hash(key) for key in ("a", "s", "w", "c", "final")}


def test_an_earlier_generation_is_not_served() -> None:
    life = Life().running()
    life.step("a")
    life.report(Continued, input=raw("{}"))
    life.claim("n2")
    life.step("b")
    assert [event.key for _, event in served(life.state, life.log)] == ["b"]


def test_a_retry_forgets_what_led_to_a_failure() -> None:
    life = Life().running()
    life.step("good")
    life.fail_step("bad", for_us=SECOND)
    life.fail_step("bad", n=2)
    life.call("child", on_end="leave")
    life.child_done("child", status="failed")
    life.call("open")
    life.report(Failed, error=ERROR)
    assert len(served(life.state, life.log)) > 1
    life.retry()
    assert [event.key for _, event in served(life.state, life.log)] == ["good"]


def test_what_was_made_good_after_a_retry_stays() -> None:
    life = Life().running()
    life.fail_step("bad")
    life.report(Failed, error=ERROR)
    life.retry()
    life.claim("n2")
    life.step("bad")
    life.report(Failed, error=ERROR)
    life.retry()
    assert [type(event).__name__ for _, event in served(life.state, life.log)] == ["CheckpointSaved"]


def test_a_retry_does_not_forget_a_compensation_that_is_called_like_a_step_that_failed() -> None:
    life = Life().running()
    life.compensate("book")
    life.fail_step("book")
    life.report(Failed, error=ERROR)
    life.retry()
    assert [type(event).__name__ for _, event in served(life.state, life.log)] == ["CompensationAdded"]
