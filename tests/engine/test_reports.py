"""Reports: counted once under the current claim, in order; anything else has no effect, or ends the attempt."""

import pytest
from msgspec import Raw

from runtara.protocol.api import PositionReply, PositionRequest
from runtara.protocol.errors import WireError
from runtara.protocol.frames import encode_frame
from runtara.protocol.messages import Superseded
from runtara.protocol.records import Completed, Custom, Failed, Log, Progress, StepFailure
from tests.support.peer import Held, Peer


async def answered(peer: Peer, held: Held, seq: int) -> str:
    request = PositionRequest(attempt=held.attempt, nonce=held.nonce, seq=seq)
    return (await peer.api("position", request, PositionReply, held.instance)).outcome


async def test_a_frame_that_is_delivered_twice_counts_once(platform: Peer) -> None:
    held = await platform.started("i-1")
    frame = encode_frame([held.step("a"), held.step("b"), held.step("c")])
    subject = platform.subjects.worker_reports(0, "default", "w1")
    for _ in range(3):
        await platform.folded(await platform.raw(subject, frame))
    assert (await platform.types("i-1")).count("CheckpointSaved") == 3
    assert (await held.commit(held.step("d"))).rejected == []
    assert await platform.rejected() == []


async def test_a_frame_that_comes_late_counts_for_nothing(platform: Peer) -> None:
    held = await platform.started("i-1")
    early, late = held.step("a"), held.step("b")
    assert (await held.commit(early, late)).rejected == []
    assert (await held.commit(early)).rejected == []  # the same answer as the first time
    await held.complete()
    assert (await held.commit(late)).rejected == []
    assert (await held.commit(held.step("c"))).rejected != []
    assert (await platform.types("i-1"))[-1] == "InstanceCompleted"


async def test_a_report_of_an_old_attempt_has_no_effect_and_its_worker_is_told(platform: Peer) -> None:
    held = await platform.started("i-1")
    await platform.claim("i-1", attempt=1, worker="w1")  # its process was started again: attempt 2
    inbox = platform.inbox()
    await platform.bus.subscribe(
        platform.subjects.control("default", "w1"), lambda msg: inbox.messages.put_nowait(msg.data)
    )
    await platform.bus.flush()
    before = await platform.types("i-1")
    for record in (held.step("zombie"), held.record(Completed)):
        answer = await held.commit(record)
        assert [(instance, attempt) for instance, attempt, _, _ in answer.rejected] == [("i-1", 1)]
    told = await inbox.next(Superseded)
    assert (told.instance, told.attempt, told.nonce) == ("i-1", 1, held.nonce)
    assert await platform.types("i-1") == before


async def test_another_worker_cannot_speak_under_a_claim_it_does_not_hold(platform: Peer) -> None:
    held = await platform.started("i-1")
    answer = await platform.commit("w2", held.record(Completed, seq=1))
    assert len(answer.rejected) == 1
    await held.complete(b'"mine"')


async def test_a_missing_number_ends_the_attempt(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    held.seq += 1  # this one was lost with the tail of a journal
    answer = await held.commit(held.step("c"), held.step("d"))
    assert [seq for _, _, seq, _ in answer.rejected] == [3, 4]
    assert "seq 3 where 2 was expected" in answer.rejected[0][3]
    types = await platform.types("i-1")
    assert types[-3:] == ["CheckpointSaved", "AttemptLost", "InstanceQueued"]


async def test_the_same_key_twice_ends_the_attempt_and_the_first_value_stays(platform: Peer) -> None:
    held = await platform.started("i-1")
    answer = await held.commit(held.step("a", b"1"), held.step("a", b"2"))
    assert [seq for _, _, seq, _ in answer.rejected] == [2]
    assert "'a'" in answer.rejected[0][3]
    again = await platform.claim("i-1", attempt=2)
    assert [bytes(memo.data) for memo in again.answer.memos] == [b'{"kind":"step","value":1}']
    await platform.is_sound()


async def test_the_same_key_is_noticed_by_an_engine_that_did_not_see_the_first(platform: Peer) -> None:
    """The keys are in no row: an engine that meets an instance for the first time reads them from the log."""
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    await platform.pool.execute("UPDATE partitions SET lease_until = now() - interval '1 s', owner = 'nobody'")
    answer = await held.commit(held.step("a"))
    assert len(answer.rejected) == 1
    assert (await platform.types("i-1"))[-2:] == ["AttemptLost", "InstanceQueued"]


async def test_what_the_log_says_can_be_asked_for(platform: Peer) -> None:
    held = await platform.started("i-1")
    assert await answered(platform, held, 1) == "pending"
    await held.commit(held.step("a"))
    assert [await answered(platform, held, seq) for seq in (1, 2)] == ["accepted", "pending"]
    await platform.claim("i-1", attempt=1, worker="w1")
    assert [await answered(platform, held, seq) for seq in (1, 2)] == ["accepted", "rejected"]


async def test_an_answer_names_what_was_rejected_and_only_that(platform: Peer) -> None:
    one, two = await platform.started("i-1"), await platform.started("i-2")
    await platform.claim("i-2", attempt=1, worker="w1")
    answer = await platform.commit("w1", one.step("a"), two.step("a"), one.step("b"))
    assert [(instance, attempt, seq) for instance, attempt, seq, _ in answer.rejected] == [("i-2", 1, 1)]
    assert answer.sequence == await platform.cursor()


async def test_progress_and_log_lines_have_no_number_and_end_nothing(platform: Peer) -> None:
    held = await platform.started("i-1")
    claim = {"instance": "i-1", "attempt": 1, "nonce": held.nonce}
    await held.publish(Progress(**claim, done=3, total=10), Log(**claim, level="info", message="hello"))  # type: ignore[arg-type]
    await held.publish(Progress(**(claim | {"nonce": "other"}), done=9))  # type: ignore[arg-type]
    assert (await held.commit(held.step("a"))).rejected == []
    assert (await platform.get("i-1")).progress == (3, 10)
    assert (await platform.types("i-1"))[-3:] == ["ProgressReported", "LogWritten", "CheckpointSaved"]


async def test_a_step_that_failed_is_tried_again_and_succeeds(platform: Peer) -> None:
    held = await platform.started("i-1")
    error = WireError(code="ValueError", message="not yet")
    await held.commit(held.record(StepFailure, key="a", n=1, error=error, for_us=50_000))
    types = await platform.until_type("i-1", "TimerFired")
    assert types[-2:] == ["StepFailed", "TimerFired"]
    assert (await held.commit(held.step("a"))).rejected == []
    await held.complete()
    await platform.is_sound()


async def test_the_last_failure_of_a_step_is_its_memo(platform: Peer) -> None:
    held = await platform.started("i-1")
    error = WireError(code="ValueError", message="no\x00t ever")
    await held.commit(held.record(StepFailure, key="a", n=3, error=error))
    assert (await held.commit(held.step("a"))).rejected != []
    again = await platform.claim("i-1", attempt=2)
    assert [(memo.key, memo.type) for memo in again.answer.memos] == [("a", "StepFailed")]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
async def test_an_event_of_the_users_with_an_impossible_name_ends_the_attempt(platform: Peer, name: str) -> None:
    held = await platform.started("i-1")
    answer = await held.commit(held.record(Custom, key="e", name=name))
    assert len(answer.rejected) == 1
    assert (await platform.types("i-1"))[-2:] == ["AttemptLost", "InstanceQueued"]


async def test_a_workflow_that_raises_fails_with_its_error(platform: Peer) -> None:
    held = await platform.started("i-1")
    error = WireError(code="WorkflowFailed", message="no luck", attributes={"type": "ValueError"})
    await held.commit(held.record(Failed, error=error))
    view = await platform.get("i-1")
    assert (view.status.value, view.error) == ("failed", error)


async def test_an_end_is_told_to_whoever_listens(platform: Peer) -> None:
    inbox = platform.inbox()
    await platform.bus.subscribe(
        platform.subjects.done("default", "i-1"), lambda msg: inbox.messages.put_nowait(msg.data)
    )
    held = await platform.started("i-1")
    await held.commit(held.record(Completed, result=Raw(b'{"x":1}')))
    done = await inbox.next(dict)
    assert (done["status"], done["result"]) == ("completed", {"x": 1})
