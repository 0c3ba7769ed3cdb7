"""Forks on the wire: one for each command, whatever is asked again; sound in the log, and folded from one record."""

import asyncio
import base64
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from runtara.engine.archive import Policy, archive
from runtara.engine.rebuild import rebuild
from runtara.protocol.api import ForkedFrom, RegisterReply, RegisterRequest, Registration
from runtara.protocol.errors import (
    Forbidden,
    HistoryTooLarge,
    InstanceNotFound,
    InvalidId,
    Malformed,
    StartConflict,
    UnknownKey,
    WireError,
)
from runtara.protocol.frames import encode_frame
from runtara.protocol.ids import partition_of
from runtara.protocol.limits import MAX_FORK_BYTES
from runtara.protocol.messages import CommandAnswer, Status
from runtara.protocol.records import Compensating, Failed, Fork, Options, Registered, StepFailure
from tests.support.peer import Held, Peer

pytestmark = pytest.mark.timeout(60)
ERROR = WireError(code="Boom", message="boom")


async def source(peer: Peer, id: str = "i-1") -> Held:
    """One that has recorded two steps, one of them with an undo, and has failed in a third."""
    held = await peer.started(id)
    await held.commit(held.step("a"))
    await held.commit(held.record(Compensating, key="undo-b", data=Raw(b'{"function":"f"}')))
    await held.commit(held.step("b", b'{"kind":"step","value":2}'))
    await held.commit(held.record(StepFailure, key="c", n=1, error=ERROR))
    return held


async def memos(peer: Peer, id: str) -> list[tuple[str, str]]:
    """What a claim of its first attempt is answered with."""
    held = await peer.claim(id)
    return [(memo.key, memo.type) for memo in held.answer.memos]


async def test_a_fork_is_created_from_one_record_and_claimed_with_what_was_copied(platform: Peer) -> None:
    await source(platform)
    answer = await platform.fork("i-1", "f-1", actor="ann")
    assert answer == CommandAnswer(id="fork-f-1", instance="f-1", status="queued")
    assert await platform.types("f-1") == [
        "InstanceCreated", "InstanceForked", "MemoCopied", "CompensationInherited", "MemoCopied", "InstanceQueued",
    ]  # fmt: skip
    events = await platform.events("f-1")
    assert (events[0]["command"], events[0]["actor"], events[1]["command"]) == ("fork-f-1", "ann", None)
    forked = msgspec.json.decode(events[1]["data"])
    theirs = (await platform.events("i-1"))[-1]
    assert (forked["version"], forked["source_hash"]) == (theirs["version"], theirs["hash"].hex())
    assert (await platform.get("f-1")).forked_from == ForkedFrom(id="i-1", version=theirs["version"])
    assert (await platform.get("i-1")).forked_from is None
    assert await memos(platform, "f-1") == [
        ("a", "CheckpointSaved"), ("undo-b", "CompensationInherited"), ("b", "CheckpointSaved"),
    ]  # fmt: skip
    await platform.is_sound()


async def test_its_run_request_does_not_let_code_begin_before_the_claim_is_answered(platform: Peer) -> None:
    await source(platform)
    await platform.fork("i-1", "f-1")
    stream = platform.subjects.run_stream
    subject = platform.subjects.run("pool", "default", "wf", "f-1", 1)
    found = await platform.bus.jetstream(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    request = msgspec.json.decode(base64.b64decode(msgspec.json.decode(found)["message"]["data"]))
    assert (request["instance"], request["attempt"], "first" in request) == ("f-1", 1, False)


async def test_the_same_request_again_is_the_same_fork_whatever_its_source_has_done_since(platform: Peer) -> None:
    held = await source(platform)
    first = await platform.fork("i-1", "f-1")
    await held.commit(held.step("d"))
    assert await platform.fork("i-1", "f-1") == first
    assert await asyncio.gather(*(platform.fork("i-1", "f-1") for _ in range(5))) == [first] * 5
    assert (await platform.types("f-1")).count("InstanceCreated") == 1
    assert [event["key"] for event in await platform.events("f-1")].count("d") == 0


async def test_records_that_were_sent_twice_before_either_was_folded_make_one_fork(platform: Peer) -> None:
    record = Fork(
        id="f", instance="f-1", tenant="default", workflow="wf", input=Raw(b"{}"), options=Options(), labels={},
        source="i-1", version=3,
    )  # fmt: skip
    await platform.engine_says(0, record, record)
    await platform.folded(await platform.engine_says(0, record))
    assert await platform.types("f-1") == ["InstanceCreated", "InstanceForked", "InstanceQueued"]


async def test_an_id_that_exists_is_a_conflict(platform: Peer) -> None:
    await source(platform)
    await platform.start("taken")
    for id in ("taken", "i-1"):
        answer = await platform.fork("i-1", id)
        assert answer.error is not None
        assert answer.error.code == StartConflict.__name__
    await platform.fork("i-1", "f-1")
    answer = await platform.fork("i-1", "f-1", id="another")
    assert answer.error is not None
    assert await platform.types("taken") == ["InstanceCreated", "InstanceQueued"]


async def test_an_unknown_key_comes_with_the_nearest(platform: Peer) -> None:
    held = await source(platform)
    await held.commit(held.step("charge~3f9a2c1b"))
    for asked in ({"at_key": "charge"}, {"set": {"charge": Raw(b"1")}}):
        with pytest.raises(UnknownKey, match="did you mean 'charge~3f9a2c1b'"):
            await platform.fork("i-1", "f-1", **asked)
    with pytest.raises(UnknownKey) as caught:
        await platform.fork("i-1", "f-1", at_key="undo-b")  # the key of a compensation is none of an operation
    assert "did you mean 'undo-b'" not in str(caught.value)
    assert await platform.row("f-1") is None


async def test_what_is_asked_badly_is_refused(platform: Peer) -> None:
    await source(platform)
    with pytest.raises(InvalidId):
        await platform.fork("i-1", "a.b")
    with pytest.raises(InvalidId):
        await platform.fork("i-1", "f-1", id="x y")
    with pytest.raises(Malformed):
        await platform.fork("i-1", "f-1", set={"a": Raw(b"[" * 140 + b"]" * 140)})
    labels = {f"l{n}": "x" for n in range(40)}
    answer = await platform.fork("i-1", "f-1", labels=labels)
    assert answer.error is not None
    assert "labels" in answer.error.message
    assert await platform.row("f-1") is None


async def test_a_client_cannot_say_what_an_engine_says(platform: Peer) -> None:
    record = Fork(
        id="f", instance="f-1", tenant="default", workflow="wf", input=Raw(b"{}"), options=Options(), labels={},
        source="i-1", version=3,
    )  # fmt: skip
    answer = await platform.ask(record)
    assert answer.error is not None
    assert answer.error.code == Forbidden.__name__
    assert await platform.row("f-1") is None


async def test_a_history_that_fits_into_no_message_is_refused_and_an_earlier_key_helps(platform: Peer) -> None:
    held = await platform.started("i-1")
    big = b'"' + b"x" * (MAX_FORK_BYTES // 3) + b'"'
    for n in range(3):
        await held.commit(held.step(f"s{n}", b'{"kind":"step","value":%b}' % big))
    with pytest.raises(HistoryTooLarge, match="8,323,072"):
        await platform.fork("i-1", "f-1")
    assert (await platform.fork("i-1", "f-1", at_key="s2")).error is None
    assert await platform.types("f-1") == [
        "InstanceCreated", "InstanceForked", "MemoCopied", "MemoCopied", "InstanceQueued",
    ]  # fmt: skip
    answer = (await platform.claim("f-1")).answer
    assert [len(memo.data) > len(big) for memo in answer.memos] == [True]
    assert answer.more
    await platform.is_sound()


async def test_a_long_history_is_copied_whole(platform: Peer) -> None:
    held = await platform.started("i-1")
    for first in range(0, 2_000, 500):
        await held.publish(*(held.step(f"s{n}", b'{"kind":"step","value":%d}' % n) for n in range(first, first + 500)))
    await held.commit(held.step("last"))
    assert (await platform.fork("i-1", "f-1", at_key="last")).error is None
    assert (await platform.types("f-1")).count("MemoCopied") == 2_000
    again = await platform.claim("f-1")
    assert again.answer.memos[0].key == "s0"
    await again.commit(again.step("last"))
    answer = await again.commit(again.step("s7"))  # its key is taken
    assert len(answer.rejected) == 1
    await platform.is_sound()


async def test_the_registration_of_now_says_what_runs_it(platform: Peer) -> None:
    options = Options(restarts=3, timeout_us=5_000_000)
    await platform.api(
        "register",
        RegisterRequest(worker="w1", workflows=[Registration(workflow="wf", options=options)]),
        RegisterReply,
    )
    await source(platform)
    await platform.register("wf", kind="process")
    await platform.fork("i-1", "f-1")
    created = msgspec.json.decode((await platform.events("f-1"))[0]["data"])
    assert created["options"] == {"runner": "process", "restarts": 3, "timeout_us": 5_000_000}


async def test_a_script_of_ones_own_cannot_be_run_by_a_fork(platform: Peer) -> None:
    record = Registered(instance="script", workflow="batch", worker="s1", nonce="n1")
    subject = platform.subjects.instance_reports(0, "default", "script")
    await platform.folded(await platform.raw(subject, encode_frame([record])))
    answer = await platform.fork("script", "f-1")
    assert answer.error is not None
    assert answer.error.code == "UnknownWorkflow"
    assert await platform.rejected() == []


async def test_one_that_was_archived_cannot_be_forked_and_its_id_not_taken(platform: Peer, tmp_path: Path) -> None:
    held = await source(platform)
    await platform.fork("i-1", "f-1")
    await held.commit(held.record(Failed, error=ERROR))
    assert (await archive(platform.pool, Policy(before_us=2**62), tmp_path)).instances == 1
    await platform.start("another")  # by now the engine has nothing of it in memory
    with pytest.raises(InstanceNotFound, match="archive"):
        await platform.fork("i-1", "f-2")
    answer = await platform.fork("f-1", "i-1")
    assert answer.error is not None
    assert answer.error.code == "InstanceArchived"
    assert (await platform.fork("i-1", "f-1")).error is None  # what was done before is answered again
    await platform.is_sound()


async def test_the_audit_goes_on_with_forks_in_the_log(platform: Peer, tmp_path: Path) -> None:
    await source(platform)
    await platform.fork("i-1", "f-1", set={"c": Raw(b'"by hand"')})
    again = await platform.claim("f-1")
    await again.commit(again.step("d"))
    await platform.fork("f-1", "f-2", at_key="d")
    await platform.is_sound()
    before = await platform.row("f-1")
    await platform.pool.execute(
        "UPDATE instances SET status = 'failed', state = '{\"version\": 1}' WHERE instance = 'f-1'"
    )
    assert [finding.instance for finding in (await platform.replay()).findings] == ["f-1"]
    async with platform.pool.acquire() as connection:
        await rebuild(connection)
    assert await platform.row("f-1") == before
    await again.complete()
    assert (await archive(platform.pool, Policy(before_us=2**62), tmp_path)).instances == 1
    await platform.is_sound()


async def test_a_second_outcome_of_a_copied_key_shows_in_the_audit(platform: Peer) -> None:
    await source(platform)
    await platform.fork("i-1", "f-1")
    assert (await platform.verify()).findings == []
    await platform.pool.execute("UPDATE events SET key = 'a' WHERE instance = 'f-1' AND key = 'b'")
    assert any("outcome already" in finding.problem for finding in (await platform.verify()).findings)


@pytest.mark.parametrize("partitions", [4])
async def test_source_and_fork_may_lie_in_different_partitions(platform: Peer) -> None:
    await source(platform)
    home = partition_of("default", "i-1", 4)
    ids = [f"f-{n}" for n in range(20)]
    assert {partition_of("default", id, 4) for id in ids} == {0, 1, 2, 3} != {home}
    answers = await asyncio.gather(*(platform.fork("i-1", id) for id in ids))
    assert all(answer.error is None for answer in answers)
    assert await memos(platform, ids[0]) == await memos(platform, ids[1])
    await platform.is_sound()


async def test_an_instance_in_any_status_can_be_forked(platform: Peer) -> None:
    await platform.start("queued")
    assert (await platform.get("queued")).status is Status.QUEUED
    assert (await platform.fork("queued", "of-queued")).status == "queued"
    held = await source(platform)
    await held.complete()
    assert (await platform.fork("i-1", "of-completed")).status == "queued"
