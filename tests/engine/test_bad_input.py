"""Whatever arrives in the journal: what is wrong is kept with its reason or answered, and the loop goes on."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from runtara.infra.settings import Settings
from runtara.protocol.frames import encode_frame
from runtara.protocol.messages import CommitAnswer, Superseded
from runtara.protocol.records import (
    Checkpointed,
    ChildDone,
    Completed,
    Exited,
    Owner,
    Parent,
    Pause,
    Record,
    Signal,
    Start,
    Started,
    TimerDue,
    WorkerLost,
    WorkflowForgotten,
    WorkflowRegistered,
)
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running
from tests.support.polling import eventually


async def still_works(peer: Peer, instance: str = "after") -> None:
    """The loop folds what comes next."""
    answer = await peer.start(instance)
    assert (answer.error, answer.status) == (None, "queued")


def start(**changes: Any) -> bytes:
    """A frame of one `start` in JSON, with any field changed to anything."""
    fields: dict[str, Any] = {"type": "start", "instance": "i-1", "id": "s-1", "workflow": "wf"}
    return msgspec.json.encode([{k: v for k, v in (fields | changes).items() if v is not ...}])


FRAMES = {
    "empty": b"",
    "no JSON": b"hello",
    "not UTF-8": b'[{"type":"start","instance":"\xff"}]',
    "an object": b"{}",
    "not of objects": b"[1]",
    "cut short": start()[:-3],
    "deep": b"[" * 200 + b"]" * 200,
    "very deep": b"[" * 400_000,
    "deep inside": start(input={"x": Raw(b"[" * 200 + b"]" * 200)}),
    "half a surrogate": b'[{"type":"start","instance":"i-1","id":"s-1","workflow":"wf","input":"\\ud800"}]',
    "an unknown type": start(type="frobnicate"),
    "no type": start(type=...),
    "a missing field": start(workflow=...),
    "an unknown field": start(colour="red"),
    "a field of another type": start(workflow=7),
}
IDS = ["", "a.b", "a*", ">", "a b", "é", "a\x00b", "x" * 200, "../etc", "a\nb"]


async def until_rejected(peer: Peer, count: int) -> list[Any]:
    async def rejected() -> list[Any]:
        rows = await peer.rejected()
        return rows if len(rows) >= count else []

    return await eventually(rejected)


@pytest.mark.parametrize("name", FRAMES)
async def test_a_frame_that_cannot_be_read_is_one_row_in_rejected(platform: Peer, name: str) -> None:
    subject = platform.subjects.commands(0, "default", "c1")
    sequence = await platform.raw(subject, FRAMES[name])
    await still_works(platform)
    (row,) = await platform.rejected()
    assert (row["sequence"], row["subject"], row["tenant"], row["code"]) == (sequence, subject, "default", "Malformed")
    assert row["reason"]
    assert row["payload"] == FRAMES[name][:4096] or row["payload"] in FRAMES[name]
    assert await platform.row("i-1") is None


@pytest.mark.parametrize("field", ["instance", "id", "workflow", "actor"])
async def test_an_id_that_could_be_more_than_an_id_is_refused(platform: Peer, field: str) -> None:
    for n, id in enumerate(IDS):
        await platform.raw(platform.subjects.commands(0, "default", "c1"), start(**{"id": f"s-{n}", field: id}))
    await still_works(platform)
    rows = await platform.rejected()
    assert [row["code"] for row in rows] == ["Malformed"] * len(IDS)
    assert await platform.pool.fetchval("SELECT count(*) FROM instances") == 1


@pytest.mark.parametrize("token", ["a$b", "ä", "x" * 200])
async def test_a_subject_with_an_illegal_id_in_it_is_refused(platform: Peer, token: str) -> None:
    for subject in (f"commands.0.{token}.c1", f"commands.0.default.{token}", f"reports.0.default.w.{token}"):
        await platform.raw(f"{platform.subjects.deployment}.{subject}", start())
    await platform.raw(f"{platform.subjects.deployment}.reports.0.default.x.y", start())
    await still_works(platform)
    assert [row["code"] for row in await platform.rejected()] == ["Malformed"] * 4


@pytest.mark.parametrize("key", ["", "a\x00b", "line\nbreak", "k" * 1_025, "\u202e"])
async def test_a_key_that_cannot_be_one_ends_its_attempt_because_its_sender_goes_on_without_it(
    platform: Peer, key: str
) -> None:
    held = await platform.started("i-1")
    answer = await held.commit(held.step("before"))
    assert answer.rejected == []
    await held.publish(held.step(key))
    types = await platform.until_type("i-1", "AttemptLost")
    assert types[-3:] == ["CheckpointSaved", "AttemptLost", "InstanceQueued"]
    assert "Malformed" in [row["code"] for row in await platform.rejected()]
    await still_works(platform)


async def test_a_bad_record_is_rejected_alone_and_its_neighbours_commit(platform: Peer) -> None:
    good = [encode_frame([Start(instance=f"i-{n}", id=f"s-{n}", workflow="wf")])[1:-1] for n in range(4)]
    frame = b"[" + b",".join([good[0], good[1], start(type="nonsense")[1:-1], good[2], b"17", good[3]]) + b"]"
    await platform.folded(await platform.raw(platform.subjects.commands(0, "default", "c1"), frame))
    assert [row["code"] for row in await platform.rejected()] == ["Malformed", "Malformed"]
    assert [await platform.status(f"i-{n}") for n in range(4)] == ["queued"] * 4


@pytest.mark.parametrize("partitions", [4])
async def test_a_record_in_the_wrong_partition_is_answered_with_the_right_one(platform: Peer) -> None:
    right = platform.partition("i-1")
    wrong = (right + 1) % 4
    inbox = platform.inbox()
    record = Start(instance="i-1", id="s-1", workflow="wf")
    subject = platform.subjects.commands(wrong, "default", "c1")
    await platform.raw(subject, encode_frame([msgspec.structs.replace(record, reply=inbox.subject)]))
    error = msgspec.json.decode(await inbox.messages.get())["error"]
    assert error["code"] == "WrongPartition"
    assert error["attributes"] == {"instance": "i-1", "expected": right, "actual": wrong}
    await platform.folded(await platform.raw(subject, encode_frame([record])), wrong)
    assert {row["code"] for row in await platform.rejected()} == {"WrongPartition"}
    assert await platform.row("i-1") is None


CLAIM: dict[str, Any] = {"instance": "i-1", "attempt": 1, "nonce": "n"}
STEP = Checkpointed(**CLAIM, seq=1, key="k", data=Raw(b"1"))
START = Start(instance="i-1", id="s-1", workflow="wf")
DONE = ChildDone(instance="i-1", id="d", tenant="default", key="k", child="c", status="completed")
FORBIDDEN: list[tuple[str, Record]] = [
    ("commands.0.default.c1", Started(**CLAIM, worker="w1")),
    ("commands.0.default.c1", Completed(**CLAIM, seq=1)),
    ("commands.0.default.c1", TimerDue(instance="i-1", tenant="default", owner="o", timer=1)),
    ("commands.0.default.c1", WorkerLost(instance="i-1", tenant="default", owner="o", attempt=1, worker="w1")),
    ("commands.0.default.c1", Exited(instance="i-1", attempt=1, worker="w1", reason="x")),
    ("commands.0.default.c1", DONE),
    ("commands.0.default.c1", Owner(instance="", token="mine")),
    ("commands.0.default.c1", WorkflowRegistered(instance="", tenant="default", workflow="mine")),
    ("reports.0.default.w.w1", WorkflowRegistered(instance="", tenant="default", workflow="mine")),
    ("runner.0.default.r1", WorkflowForgotten(instance="", tenant="default", workflow="wf")),
    ("commands.0.default.c1", Pause(instance="i-1", id="p", tenant="other")),
    ("commands.0.default.c1", Start(instance="i-1", id="s", workflow="wf", parent=Parent(instance="p", key="k"))),
    ("reports.0.default.w.w1", START),
    ("reports.0.default.w.w1", DONE),
    ("reports.0.default.w.w1", Started(**CLAIM, worker="w2")),
    ("reports.0.default.w.w1", Started(**CLAIM, worker="w1", by="runner")),
    ("reports.0.default.i.i-2", STEP),
    ("runner.0.default.r1", STEP),
    ("runner.0.default.r1", START),
    ("runner.0.default.r1", Started(**CLAIM, worker="w1")),
    ("engine.0", STEP),
    ("engine.0", Pause(instance="i-1", id="p", tenant="default")),
    ("engine.0", START),
]


@pytest.mark.parametrize(("subject", "record"), FORBIDDEN, ids=[f"{type(r).__name__} on {s}" for s, r in FORBIDDEN])
async def test_who_may_not_say_it_is_not_heard(platform: Peer, subject: str, record: Record) -> None:
    await platform.folded(await platform.raw(f"{platform.subjects.deployment}.{subject}", encode_frame([record])))
    (row,) = await platform.rejected()
    assert (row["code"], row["instance"] or "") == ("Forbidden", record.instance)
    assert await platform.row("i-1") is None


async def test_a_tenant_sees_and_touches_only_its_own(platform: Peer, deployed: Settings) -> None:
    held = await platform.started("i-1")
    async with connect_peer(deployed, tenant="other") as other:
        answer = await other.ask(Pause(instance="i-1", id="p-1"))
        assert answer.error is not None
        assert answer.error.code == "InstanceNotFound"
        await other.report("w1", held.record(Completed))
        await other.register("wf")
        assert (await other.start("i-1")).error is None  # the same id in another tenant is another instance
    assert (await held.commit(held.record(Completed, seq=1))).rejected == []
    assert await platform.types("i-1", "other") == ["InstanceCreated", "InstanceQueued"]
    assert (await platform.types("i-1"))[-1] == "InstanceCompleted"


async def test_an_answer_goes_only_to_an_inbox_of_the_subjects_tenant(platform: Peer) -> None:
    control = platform.subjects.control("default", "w1")
    heard: list[bytes] = []
    for subject in (control, "_INBOX.other.>", "_INBOX.default.*"):
        await platform.bus.subscribe(subject, lambda msg: heard.append(msg.data))
    for n, reply in enumerate((control, "_INBOX.other.u.1", "_INBOX.default.*", "_INBOX.default.>")):
        await platform.say(msgspec.structs.replace(START, instance=f"i-{n}", id=f"s-{n}", reply=reply))
    await still_works(platform)  # asked and answered behind them
    assert [message for message in heard if b"s-" in message] == []
    assert [await platform.status(f"i-{n}") for n in range(4)] == ["queued"] * 4


async def test_bad_input_is_rejected_once_however_often_the_engine_restarts(deployed: Settings, peer: Peer) -> None:
    await peer.raw(peer.subjects.commands(0, "default", "c1"), b"junk")
    for n in range(2):
        async with running(deployed):
            await peer.register("wf")
            await still_works(peer, f"after-{n}")
    assert len(await peer.rejected()) == 1


async def test_a_flood_of_junk_stops_nothing(platform: Peer) -> None:
    subject = platform.subjects.commands(0, "default", "c1")
    await asyncio.gather(*(platform.raw(subject, b"\x00" * 100) for _ in range(300)))
    await still_works(platform)
    await until_rejected(platform, 300)


async def test_a_signal_that_nobody_can_take_is_refused_by_name(platform: Peer) -> None:
    await platform.start("i-1")
    answer = await platform.ask(Signal(instance="i-1", id="g-1", name="a.b"))
    assert answer.error is not None
    assert answer.error.code == "Malformed"
    assert (await platform.ask(Signal(instance="i-1", id="g-2", name="go"))).error is None


async def test_a_claim_or_a_report_that_its_subject_does_not_allow_is_answered(platform: Peer) -> None:
    """Its sender asks until it hears something: silence would have it ask for ever."""
    inbox = platform.inbox()
    claim = Started(instance="i-1", attempt=1, nonce="n", worker="w2", reply=inbox.subject)
    await platform.report("w1", claim)
    told = await inbox.next(Superseded)
    assert (told.instance, told.nonce, "it names another worker" in told.reason) == ("i-1", "n", True)
    subject = platform.subjects.instance_reports(0, "default", "i-2")
    await platform.raw(subject, encode_frame([msgspec.structs.replace(STEP, reply=inbox.subject)]))
    answer = await inbox.next(CommitAnswer)
    assert [(instance, seq) for instance, _, seq, _ in answer.rejected] == [("i-1", 1)]
