"""Commands: decided once, answered as often as they are sent."""

import asyncio

import msgspec
import pytest
from msgspec import Raw

from runtara.engine import dispatch
from runtara.protocol.frames import encode_frame
from runtara.protocol.messages import CommandAnswer
from runtara.protocol.records import Cancel, Pause, Resume, Retry, Signal, Start
from tests.support.peer import Peer
from tests.support.polling import eventually


async def test_a_start_creates_and_queues_and_is_answered_after_its_commit(platform: Peer) -> None:
    answer = await platform.start("i-1", input=b'{"n":1}', id="s-1")
    assert answer == CommandAnswer(id="s-1", instance="i-1", status="queued")
    created, queued = await platform.events("i-1")
    assert (created["type"], created["version"], created["command"]) == ("InstanceCreated", 1, "s-1")
    assert (queued["type"], queued["version"], queued["command"]) == ("InstanceQueued", 2, None)
    assert msgspec.json.decode(created["data"])["input"] == {"n": 1}


async def test_a_repeated_command_is_answered_again_and_has_no_other_effect(platform: Peer) -> None:
    first = await platform.start("i-1", id="s-1")
    assert await platform.start("i-1", id="s-1") == first
    signal = Signal(instance="i-1", id="g-1", name="go", data=Raw(b"1"))
    assert (await platform.ask(signal)).error is None
    assert (await platform.ask(signal)).error is None
    assert (await platform.types("i-1")).count("SignalReceived") == 1


async def test_a_command_repeated_within_one_batch_counts_once(platform: Peer) -> None:
    await platform.start("i-1")
    signal = Signal(instance="i-1", id="g-1", name="go")
    sequences = await asyncio.gather(*(platform.say(signal, signal, signal) for _ in range(5)))
    await platform.folded(max(sequences))
    assert (await platform.types("i-1")).count("SignalReceived") == 1
    assert await platform.rejected() == []


async def test_a_repeated_command_reports_what_has_become_of_the_instance_since(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.complete()
    again = await platform.start("i-1")
    assert (again.status, again.error) == ("completed", None)


async def test_a_start_of_a_taken_id_with_another_input_or_workflow_is_a_conflict(platform: Peer) -> None:
    await platform.register("wf", "other")
    await platform.start("i-1", input=b'{"n":1}', id="s-1")
    for n, answer in enumerate(
        [
            await platform.start("i-1", input=b'{"n":2}', id="s-2"),
            await platform.start("i-1", "other", input=b'{"n":1}', id="s-3"),
        ]
    ):
        assert answer.error is not None, n
        assert answer.error.code == "StartConflict"
    assert (await platform.start("i-1", input=b'{"n":1}', id="s-4")).error is None
    assert await platform.types("i-1") == ["InstanceCreated", "InstanceQueued"]


async def test_two_clients_that_start_the_same_id_at_once_get_one_instance(platform: Peer) -> None:
    starts = [Start(instance="i-1", id=f"s-{n}", workflow="wf", input=Raw(b"%d" % n)) for n in range(10)]
    answers = await asyncio.gather(*(platform.ask(start) for start in starts))
    assert sorted(answer.error is None for answer in answers) == [False] * 9 + [True]
    assert await platform.types("i-1") == ["InstanceCreated", "InstanceQueued"]


async def test_an_unknown_workflow_is_refused_with_the_nearest_names(platform: Peer) -> None:
    await platform.register("fulfil_order", "refund_order")
    answer = await platform.start("i-1", "fulfill_order")
    assert answer.error is not None
    assert answer.error.code == "UnknownWorkflow"
    assert "'fulfil_order'" in answer.error.message
    assert await platform.row("i-1") is None
    far = await platform.start("i-1", "zzz", id="s-2")
    assert far.error is not None
    assert "did you mean" not in far.error.message


async def test_a_workflow_is_unknown_to_other_tenants(platform: Peer) -> None:
    subject = platform.subjects.commands(0, "other", "c1")
    await platform.folded(await platform.raw(subject, encode_frame([Start(instance="i-1", id="s-1", workflow="wf")])))
    (row,) = await platform.rejected()
    assert (row["tenant"], row["code"]) == ("other", "UnknownWorkflow")
    assert "did you mean" not in row["reason"]


async def test_a_refused_command_that_nobody_waits_for_is_kept_in_rejected(platform: Peer) -> None:
    await platform.folded(await platform.say(Pause(instance="nobody", id="p-1")))
    (row,) = await platform.rejected()
    assert (row["instance"], row["code"]) == ("nobody", "InstanceNotFound")


@pytest.mark.parametrize("command", [Pause, Resume, Cancel, Retry, Signal])
async def test_a_command_for_nobody_is_answered_so(platform: Peer, command: type) -> None:
    fields = {"name": "go"} if command is Signal else {}
    answer = await platform.ask(command(instance="nobody", id="x-1", **fields))
    assert answer.error is not None
    assert answer.error.code == "InstanceNotFound"


async def test_an_illegal_request_names_the_state_it_met(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.complete()
    answer = await platform.ask(Pause(instance="i-1", id="p-1"))
    assert answer.error is not None
    assert (answer.error.code, answer.status) == ("IllegalTransition", "completed")
    assert "completed" in answer.error.message


async def test_a_queued_instance_that_is_paused_or_cancelled_cannot_be_claimed_and_its_request_is_withdrawn(
    platform: Peer,
) -> None:
    for n, command in enumerate((Pause(instance="i-0", id="p"), Cancel(instance="i-1", id="c"))):
        await platform.start(f"i-{n}")
        await platform.ask(command)
        assert not [subject for subject in await platform.waiting_runs() if f".i-{n}." in subject]
        assert type(await platform.try_claim(f"i-{n}")).__name__ == "Superseded"
    assert await platform.types("i-1") == [
        "InstanceCreated", "InstanceQueued", "CancelRequested", "InstanceCancelled",
    ]  # fmt: skip
    await platform.ask(Resume(instance="i-0", id="r"))
    await platform.claim("i-0", attempt=2)


async def test_a_paused_resident_is_told_and_answers(platform: Peer) -> None:
    held = await platform.started("i-1")
    inbox = platform.inbox()
    await platform.bus.subscribe(
        platform.subjects.control("default", "w1"), lambda msg: inbox.messages.put_nowait(msg.data)
    )
    await platform.bus.flush()
    await platform.ask(Pause(instance="i-1", id="p-1"))
    assert await inbox.next(dict) == {"type": "pause", "instance": "i-1", "attempt": 1, "nonce": held.nonce}


async def test_a_cancel_right_behind_a_burst_of_starts_leaves_no_request_to_run(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered means withdrawn: nobody may start what was cancelled while its request was still on its way."""
    monkeypatch.setattr(dispatch, "MAX_IN_FLIGHT", 1)
    bursts = [[f"i-{burst}-{n}" for n in range(250)] for burst in range(2)]
    inbox = platform.inbox()
    for ids in bursts:
        await platform.say(*(Start(instance=id, id=f"s-{id}", workflow="wf") for id in ids))
    last = bursts[-1][-20:]
    await platform.say(*(Cancel(instance=id, id=f"c-{id}", reply=inbox.subject) for id in reversed(last)))
    for _ in last:
        assert (await inbox.next(CommandAnswer)).status == "cancelled"

    async def waiting() -> set[str]:
        return {subject.split(".")[-2] for subject in await platform.waiting_runs()}

    async def all_the_others_wait() -> bool:
        return len(await waiting() - set(last)) == 2 * 250 - len(last)

    await eventually(all_the_others_wait, within=20)
    assert await waiting() & set(last) == set()
