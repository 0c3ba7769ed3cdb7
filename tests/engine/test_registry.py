"""Registrations: what any engine was told, every partition knows, in the order of its own journal."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest
from msgspec import Raw

from runtara.engine import purge
from runtara.infra.bus import PublishRefused
from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.errors import Malformed, PlatformUnreachable
from runtara.protocol.records import ChildRequest, Options, Parked, Start
from runtara.sdk import Context, Workflow, workflow
from runtara.sdk.discovery import Code
from runtara.sdk.worker import Worker
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually


async def nothing(ctx: Context) -> object:
    return None


hosted: Workflow[..., object] = workflow(name="hosted")(nothing)


async def register(peer: Peer, *workflows: Registration) -> None:
    await peer.api("register", RegisterRequest(worker="w1", workflows=list(workflows)), RegisterReply)


def wf(restarts: int) -> Registration:
    return Registration(workflow="wf", options=Options(restarts=restarts))


def somewhere(peer: Peer, partition: int, prefix: str) -> str:
    """An instance's id that belongs to `partition`."""
    return next(id for id in (f"{prefix}-{n}" for n in range(999)) if peer.partition(id) == partition)


async def restarts(peer: Peer, instance: str) -> int | None:
    """The budget that the log keeps of how the instance was started; None if it does not know the instance."""
    events = await peer.events(instance)
    return int(msgspec.json.decode(events[0]["data"])["options"]["restarts"]) if events else None


@pytest.mark.parametrize("partitions", [3])
async def test_a_start_knows_what_was_registered_before_it_in_every_partition(deployed: Settings, peer: Peer) -> None:
    """Two engines: whichever answers, and whichever owns the partition."""
    async with running(deployed), running(deployed):
        for budget in (3, 7, 9):
            await register(peer, wf(budget))
            instances = [somewhere(peer, partition, f"i{budget}") for partition in range(3)]
            for instance in instances:
                await peer.start(instance)
            assert [await restarts(peer, instance) for instance in instances] == [budget] * 3
        assert await peer.api("forget", "wf", bool)
        for partition in range(3):
            answer = await peer.start(somewhere(peer, partition, "late"))
            assert answer.error is not None
            assert answer.error.code == "UnknownWorkflow"
    await peer.is_sound()


async def test_one_batch_may_register_start_and_forget(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await register(peer, wf(1))
    starts = [Start(instance=f"i-{n}", id=f"s-{n}", workflow="wf") for n in range(4)]
    await peer.say(starts[0])
    for n, budget in enumerate((4, 8), start=1):
        await peer.engine_says(0, peer.registered("wf", options=Options(restarts=budget)))
        await peer.say(starts[n])
    await peer.engine_says(0, peer.forgotten("wf"))
    last = await peer.say(starts[3])
    async with running(deployed):
        await peer.folded(last)
    assert [await restarts(peer, f"i-{n}") for n in range(4)] == [1, 4, 8, None]
    assert [row["code"] for row in await peer.rejected()] == ["UnknownWorkflow"]
    assert await peer.pool.fetch("SELECT * FROM workflows") == []


async def test_who_asks_for_a_workflow_that_there_is_not_is_told_of_the_nearest(platform: Peer) -> None:
    await platform.register("fulfil", "refund")
    answer = await platform.start("i-1", "fulfill")
    assert answer.error is not None
    assert "did you mean 'fulfil'?" in answer.error.message


@pytest.mark.parametrize("partitions", [2])
async def test_a_child_is_started_by_what_its_own_partition_knows(platform: Peer) -> None:
    parent = somewhere(platform, 0, "p")
    here, there = somewhere(platform, 0, "c"), somewhere(platform, 1, "c")
    await platform.engine_says(1, platform.registered("known-in-1"))
    held = await platform.started(parent)
    for child in (here, there):
        request = ChildRequest(workflow="known-in-1", instance=child)
        await held.commit(held.record(Parked, key=child, kind="child", child=request))
    await platform.until_type(parent, "ChildFailed")
    await platform.until_status(there, "queued")
    (failed,) = [event for event in await platform.events(parent) if event["type"] == "ChildFailed"]
    assert (failed["key"], msgspec.json.decode(failed["data"])["error"]["code"]) == (here, "UnknownWorkflow")


async def test_what_is_registered_again_unchanged_writes_no_row(platform: Peer) -> None:
    async def row() -> tuple[object, ...]:
        await platform.start(f"i-{len(seen)}")  # answered behind what was registered before it
        seen.append(tuple(await platform.pool.fetchrow("SELECT ctid, xmin, * FROM workflows") or ()))
        return seen[-1]

    seen: list[tuple[object, ...]] = []
    first = await row()
    await platform.register("wf", worker="w2")
    assert await row() == first
    await register(platform, wf(2))
    assert await row() != first


@pytest.mark.parametrize(
    ("registration", "reason"),
    [
        (Registration(workflow="wf", description="a\x00b"), "illegal characters"),
        (Registration(workflow="wf", code_version="\x00"), "illegal characters"),
        (Registration(workflow="wf", parameters=Raw(b'"\xff"')), "utf-8|not a frame"),
        (Registration(workflow="wf", parameters=Raw(b"[" * 200 + b"]" * 200)), "nested"),
    ],
)
async def test_what_no_engine_could_read_is_refused_before_it_is_told_to_any(
    platform: Peer, registration: Registration, reason: str
) -> None:
    with pytest.raises(Malformed, match=reason):
        await register(platform, registration)
    assert (await platform.start("i-1")).error is None
    assert await platform.rejected() == []


@pytest.fixture
async def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peer]:
    """Two partitions of one megabyte each that nobody purges, and an engine."""
    monkeypatch.setattr(purge, "LOOK_EVERY_SECONDS", 600.0)
    settings = dataclasses.replace(settings, journal_max_bytes=1_000_000, partitions=2)
    await deploy(settings)
    async with running(settings), connect_peer(settings) as peer:
        yield peer


async def fill(peer: Peer, partition: int) -> None:
    """Until not one byte more fits into the journal."""
    subject = peer.subjects.commands(partition, "default", "c1")
    for size in (100_000, 1_000, 1):
        with contextlib.suppress(PublishRefused):
            for _ in range(1_000):
                await peer.raw(subject, b"x" * size)


async def empty(peer: Peer, partition: int) -> None:
    question = {"seq": await peer.cursor(partition)}
    await peer.bus.jetstream(f"STREAM.PURGE.{peer.subjects.journal_stream(partition)}", question)


async def test_a_registration_that_a_full_journal_does_not_take_is_refused_until_it_does(
    small: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(small, 1)
    with caplog.at_level(logging.WARNING), pytest.raises(PlatformUnreachable, match="journal of partition 1"):
        await register(small, wf(3))
    assert "registration_delayed" in caplog.text
    await empty(small, 1)
    await register(small, wf(4))
    for partition in range(2):
        instance = somewhere(small, partition, "i")
        await small.start(instance)
        assert await restarts(small, instance) == 4


async def test_a_worker_waits_with_a_log_line_until_every_journal_has_its_registration(
    small: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(small, 1)
    async with AsyncExitStack() as stack:
        worker = Worker(small.settings, Code(workflows=(hosted,), version="v1", files=()))
        with caplog.at_level(logging.WARNING):
            opening = asyncio.create_task(stack.enter_async_context(worker))
            await eventually(lambda: "runtara.worker" in caplog.text and "registration_delayed" in caplog.text)
        assert not opening.done()
        await empty(small, 1)
        await opening
        instance = somewhere(small, 1, "i")
        await small.start(instance, "hosted")
        await small.until_status(instance, "completed")
