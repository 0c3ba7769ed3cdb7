"""Reports: applied under the current claim in order, or the attempt ends."""

from typing import Any

import pytest
from msgspec.structs import replace

from runtara.engine.lifecycle import Status, decide, position
from runtara.protocol.errors import DuplicateKey, Malformed, StaleClaim
from runtara.protocol.events import CheckpointSaved, InstanceFailed, StepFailed
from runtara.protocol.records import (
    Cancelled,
    Checkpointed,
    Completed,
    Continued,
    Custom,
    Failed,
    Log,
    Progress,
    Unreadable,
)
from tests.lifecycle.life import ERROR, INSTANCE, SECOND, Life, raw, worker_source


def test_a_checkpoint_is_saved_byte_for_byte() -> None:
    life = Life().running()
    life.report(Checkpointed, key="a", data=raw('{ "kind":"step" , "value":1.0}'))
    saved = life.log[-1][1]
    assert isinstance(saved, CheckpointSaved)
    assert bytes(saved.data) == b'{ "kind":"step" , "value":1.0}'


def test_reports_are_numbered_without_gaps() -> None:
    life = Life().running()
    for n in range(1, 4):
        life.step(f"k{n}")
    assert life.state.claim is not None
    assert life.state.claim.last_seq == 3


def test_an_old_seq_is_a_duplicate_whatever_it_says() -> None:
    life = Life().running()
    life.step("a")
    again = life.report(Checkpointed, key="b", data=raw("2"), seq=1)
    assert (again.note, again.events) == ("duplicate", ())


def test_a_gap_ends_the_attempt() -> None:
    life = Life().running()
    gap = life.report(Checkpointed, key="b", data=raw("2"), seq=3)
    assert (gap.note, type(gap.error)) == ("refused", Malformed)
    assert life.types[-2:] == ["AttemptLost", "InstanceQueued"]


def test_a_second_value_for_a_key_ends_the_attempt() -> None:
    life = Life().running()
    life.step("a", "1")
    second = life.step("a", "2")
    assert isinstance(second.error, DuplicateKey)
    assert life.status is Status.QUEUED
    assert life.types.count("CheckpointSaved") == 1


@pytest.mark.parametrize("change", [{"nonce": "other"}, {"attempt": 2}])
def test_a_zombie_attempt_cannot_write(change: dict[str, object]) -> None:
    life = Life().running()
    record = Checkpointed(instance=INSTANCE, attempt=1, nonce="n1", seq=1, key="a", data=raw("1"))
    late = life.tell(replace(record, **change), worker_source("w1"))
    assert (late.note, late.events, type(late.error)) == ("stale", (), StaleClaim)


def test_another_worker_cannot_speak_under_a_claim() -> None:
    life = Life().running()
    record = Completed(instance=INSTANCE, attempt=1, nonce="n1", seq=1)
    assert life.tell(record, worker_source("w2")).note == "stale"


@pytest.mark.parametrize("leave", ["suspend", "lose", "pause", "complete"])
def test_nothing_is_written_after_a_claim_has_ended(leave: str) -> None:
    life = Life().running()
    claim = life.state.claim
    assert claim is not None
    if leave == "suspend":
        life.sleep("s")
        life.suspend("s")
    elif leave == "pause":
        life.pause()
        life.suspend(reason="pause")
    else:
        getattr(life, leave)()
    record = Completed(instance=INSTANCE, attempt=1, nonce="n1", seq=9)
    assert life.tell(record, worker_source("w1")).note == "stale"


def test_a_report_that_ended_its_claim_is_a_duplicate_when_it_comes_again() -> None:
    life = Life().running()
    life.step("a")
    life.complete()
    again = Completed(instance=INSTANCE, attempt=1, nonce="n1", seq=2, result=raw('"done"'))
    assert life.tell(again, worker_source("w1")).note == "duplicate"


def test_a_failed_try_leaves_the_key_free_for_the_next() -> None:
    life = Life().running()
    life.fail_step("a", for_us=SECOND)
    assert [t.purpose for t in life.state.timers.values()] == ["retry"]
    life.fail_step("a", n=2, for_us=2 * SECOND)
    assert len(life.state.timers) == 1
    life.step("a")
    assert (life.state.timers, life.state.waits) == ({}, {})


def test_the_last_failure_answers_the_key() -> None:
    life = Life().running()
    life.fail_step("a")
    failed = life.log[-1][1]
    assert isinstance(failed, StepFailed)
    assert failed.due_us is None
    assert isinstance(life.step("a").error, DuplicateKey)


def test_custom_events_are_recorded_once() -> None:
    life = Life().running()
    life.report(Custom, key="e", name="shipped", data=raw("1"))
    assert isinstance(life.report(Custom, key="e", name="shipped", data=raw("1")).error, DuplicateKey)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\x00"])
def test_a_custom_event_needs_a_sound_name(name: str) -> None:
    life = Life().running()
    assert isinstance(life.report(Custom, key="e", name=name).error, Malformed)
    assert life.status is Status.QUEUED


def test_an_undo_may_be_named_like_its_step_and_is_registered_once() -> None:
    life = Life().running()
    life.compensate("charge")
    life.step("charge")
    assert isinstance(life.compensate("charge").error, DuplicateKey)


@pytest.mark.parametrize(
    ("cls", "fields", "status"),
    [
        (Completed, {"result": raw("1")}, Status.COMPLETED),
        (Failed, {"error": ERROR}, Status.FAILED),
        (Cancelled, {"reason": "asked"}, Status.CANCELLED),
    ],
)
def test_an_attempt_says_how_it_ends(cls: type, fields: dict[str, Any], status: Status) -> None:
    life = Life().running()
    life.report(cls, **fields)
    assert life.status is status
    assert life.state.claim is None


def test_what_completes_first_wins_over_a_cancel() -> None:
    life = Life().running()
    life.cancel()
    life.complete()
    assert life.status is Status.COMPLETED
    assert life.state.timers == {}


def test_an_error_text_keeps_no_nul() -> None:
    life = Life().running()
    life.report(Failed, error=replace(ERROR, message="a\x00b"))
    failed = life.log[-1][1]
    assert isinstance(failed, InstanceFailed)
    assert failed.error.message == "ab"


def test_continuing_starts_over_with_fresh_keys() -> None:
    life = Life().running()
    life.step("a")
    life.sleep("s")
    life.signal("kept")
    life.report(Continued, input=raw('{"n":2}'))
    assert life.types[-2:] == ["InstanceContinued", "InstanceQueued"]
    assert (life.state.waits, life.state.timers) == ({}, {})
    assert "kept" in life.state.pending
    life.claim("n2")
    assert life.step("a").note == "applied"


def test_continuing_obeys_a_pause_and_a_cancel() -> None:
    paused, cancelled = Life().running(), Life().running()
    paused.pause()
    paused.report(Continued, input=raw("{}"))
    assert paused.status is Status.PAUSED
    cancelled.cancel()
    cancelled.report(Continued, input=raw("{}"))
    assert cancelled.status is Status.CANCELLED


def test_progress_and_logs_count_only_under_the_claim_and_take_no_seq() -> None:
    life = Life().running()
    progress = Progress(instance=INSTANCE, attempt=1, nonce="n1", done=3, total=10)
    log = Log(instance=INSTANCE, attempt=1, nonce="n1", level="info", message="hi")
    for record in (progress, log):
        assert life.tell(record, worker_source("w1")).note == "applied"
        assert life.tell(replace(record, nonce="x"), worker_source("w1")).note == "stale"
        assert Life().tell(record, worker_source("w1")).note == "stale"
    assert life.state.claim is not None
    assert life.state.claim.last_seq == 0


def test_an_unreadable_report_ends_the_attempt_it_belongs_to() -> None:
    life = Life().running()
    record = Unreadable(instance=INSTANCE, attempt=1, nonce="n1", seq=1, reason="bad")
    assert life.tell(replace(record, nonce="x"), worker_source("w1")).note == "stale"
    assert life.tell(record, worker_source("w1")).note == "refused"
    assert life.status is Status.QUEUED


def test_nothing_is_decided_on_keys_that_are_not_loaded() -> None:
    life = Life().running()
    unloaded = replace(life.state, keys=type(life.state.keys)())
    record = Checkpointed(instance=INSTANCE, attempt=1, nonce="n1", seq=1, key="a", data=raw("1"))
    assert decide(unloaded, record, life.now, source=worker_source("w1")).note == "refused"


def test_the_position_of_a_report_is_known() -> None:
    life = Life().running()
    life.step("a")
    assert position(life.state, 1, "n1", 1) == "accepted"
    assert position(life.state, 1, "n1", 2) == "pending"
    assert position(life.state, 1, "zz", 1) == "rejected"
    life.lose()
    assert position(life.state, 1, "n1", 1) == "accepted"
    assert position(life.state, 1, "n1", 2) == "rejected"
    assert position(life.state, 2, "n2", 1) == "pending"
