"""Runners: where their requests wait, their claims, what they list, and what they are told of it."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from runtara.protocol.api import ConsumersRequest, RegisterReply, Registration
from runtara.protocol.configuration import RegisteredImage, RegisterImage
from runtara.protocol.ids import new_nonce
from runtara.protocol.messages import ClaimAnswer, Claimed, Heartbeat, Hosted, Superseded
from runtara.protocol.records import Cancel, Checkpointed, Exited, Image, Options, Start, Started
from tests.support.peer import Peer
from tests.support.polling import eventually

IMAGE = Image(name="box", version=1, reference="sha256:" + "0" * 64, memory_bytes=64 * 1024**2)


async def claim(peer: Peer, subject: str, nonce: str, **fields: object) -> ClaimAnswer:
    inbox = peer.inbox()
    record = Started(instance="i-1", attempt=1, nonce=nonce, reply=inbox.subject, **fields)  # type: ignore[arg-type]
    await peer.raw(subject, msgspec.json.encode([record]))
    return await inbox.next(ClaimAnswer)  # type: ignore[arg-type]  # a union


async def reserve(peer: Peer, nonce: str = "r-1") -> ClaimAnswer:
    return await claim(peer, peer.subjects.runner(0, "default", "r1"), nonce, worker="r1", by="runner", token="t-1")


async def take_over(peer: Peer, nonce: str = "c-1") -> ClaimAnswer:
    return await claim(peer, peer.subjects.instance_reports(0, "default", "i-1"), nonce, worker="box", token="t-1")


async def boxed(peer: Peer) -> None:
    await peer.api(
        "register_image", RegisterImage(image=IMAGE, workflows=[Registration(workflow="boxed")]), RegisteredImage
    )


async def listen(peer: Peer) -> list[Superseded]:
    """What runner r1 is told from now on."""
    told: list[Superseded] = []
    await peer.bus.subscribe(
        peer.subjects.control("default", "r1"), lambda msg: told.append(msgspec.json.decode(msg.data, type=Superseded))
    )
    await peer.bus.flush()
    return told


async def list_it(peer: Peer, nonce: str = "r-1") -> None:
    heartbeat = Heartbeat(worker="r1", kind="docker", hosted=Hosted(instances=[("i-1", 1, nonce)]))
    await peer.bus.publish(peer.subjects.heartbeat("default", "r1"), msgspec.json.encode(heartbeat))


async def test_a_runner_finds_the_workflows_of_its_kind_whoever_registered_them(platform: Peer) -> None:
    await boxed(platform)
    await platform.register("pooled")

    async def found() -> RegisterReply:
        reply = await platform.api("consumers", ConsumersRequest(runner="r1", kind="docker"), RegisterReply)
        assert reply.consumers
        return reply

    reply = await eventually(found)
    assert list(reply.consumers) == ["boxed"]
    assert reply.images == {"boxed": IMAGE}
    await platform.bus.jetstream(f"CONSUMER.INFO.{reply.stream}.{reply.consumers['boxed']}")  # it is there
    (shown,) = [view for view in await platform.workflows() if view.id == "boxed"]
    assert "r1" in shown.workers


async def test_nobody_but_a_registration_says_what_runs_an_instance(platform: Peer) -> None:
    await boxed(platform)
    mine = Options(runner="pool", restarts=2, image=msgspec.structs.replace(IMAGE, reference="mine", network="host"))
    answer = await platform.ask(Start(id="s-1", instance="i-1", workflow="boxed", options=mine))
    assert answer.error is None
    created = msgspec.json.decode((await platform.events("i-1"))[0]["data"])
    options = msgspec.convert(created["options"], Options)
    assert options == Options(runner="docker", restarts=2, image=IMAGE)


async def test_a_reservation_is_answered_without_the_history(platform: Peer) -> None:
    await boxed(platform)
    await platform.start("i-1", "boxed")
    await reserve(platform, "r-0")
    await take_over(platform, "c-0")
    step = Checkpointed(
        instance="i-1", attempt=1, nonce="c-0", seq=1, key="a", data=msgspec.Raw(b'{"kind":"step","value":1}')
    )
    await platform.raw(platform.subjects.instance_reports(0, "default", "i-1"), msgspec.json.encode([step]))
    await platform.report_as_runner(Exited(instance="i-1", attempt=1, worker="r1", reason="1"))
    await platform.until_type("i-1", "InstanceQueued", times=2)
    inbox = platform.inbox()
    second = Started(
        instance="i-1", attempt=2, nonce=new_nonce(), worker="r1", by="runner", token="t-2", reply=inbox.subject
    )
    await platform.raw(platform.subjects.runner(0, "default", "r1"), msgspec.json.encode([second]))
    answer: ClaimAnswer = await inbox.next(ClaimAnswer)  # type: ignore[arg-type]  # a union
    assert isinstance(answer, Claimed)
    assert (answer.attempt, answer.memos) == (2, [])


async def test_what_a_runner_launched_is_no_stranger_in_its_list(platform: Peer) -> None:
    await boxed(platform)
    await platform.start("i-1", "boxed")
    await reserve(platform)
    await take_over(platform)
    told = await listen(platform)
    await list_it(platform)
    await list_it(platform, nonce="r-other")
    await eventually(lambda: told)
    assert [message.nonce for message in told] == ["r-other"]


Ending = Callable[[Peer], Awaitable[object]]


async def _by_the_runner(peer: Peer) -> None:
    await peer.report_as_runner(Exited(instance="i-1", attempt=1, worker="r1", reason="1"))


async def _by_its_lease(peer: Peer) -> None:
    """The container says nothing more."""


@pytest.mark.usefixtures("quick_watch")
@pytest.mark.parametrize("ending", [_by_the_runner, _by_its_lease])
async def test_the_runner_is_told_that_its_container_holds_nothing_any_more(platform: Peer, ending: Ending) -> None:
    await boxed(platform)
    await platform.start("i-1", "boxed")
    await reserve(platform)
    await take_over(platform)
    told = await listen(platform)
    await ending(platform)
    await platform.until_type("i-1", "AttemptLost")
    await eventually(lambda: told)
    assert {(message.attempt, message.nonce) for message in told} == {(1, "r-1")}


@pytest.mark.usefixtures("quick_watch")
async def test_the_lease_of_a_reservation_is_its_runners_heartbeat(platform: Peer) -> None:
    await boxed(platform)
    await platform.register("wf")
    await platform.start("i-1", "boxed")
    await reserve(platform)

    async def keep_beating() -> None:
        while True:
            await list_it(platform)
            await asyncio.sleep(0.05)

    beating = asyncio.create_task(keep_beating())
    await platform.start("i-2")
    await platform.claim("i-2", worker="w2")
    await platform.until_type("i-2", "AttemptLost")  # a whole lease has passed
    assert "AttemptLost" not in await platform.types("i-1")
    beating.cancel()
    await platform.until_type("i-1", "AttemptLost")


async def test_cancelling_what_was_only_reserved_waits_for_its_container(platform: Peer) -> None:
    await boxed(platform)
    await platform.start("i-1", "boxed")
    await reserve(platform)
    await platform.ask(Cancel(id="c-1", instance="i-1"))
    answer = await take_over(platform)
    assert isinstance(answer, Claimed)
    assert answer.cancel
