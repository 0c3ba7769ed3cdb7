"""Forks, on the real platform and in memory: what is answered, what runs again, what is undone, what is refused."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.api import ForkedFrom
from runtara.protocol.errors import (
    BadInput,
    InstanceNotFound,
    StartConflict,
    UnknownKey,
    UnknownWorkflow,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimeout,
)
from runtara.protocol.messages import Status
from runtara.sdk import Context, step, sync, workflow
from runtara.sdk.client import Client, Handle
from tests.support.polling import eventually

from .conftest import Host

pytestmark = pytest.mark.timeout(60)
AT_ONCE = timedelta(0)
SHORT = timedelta(milliseconds=300)

calls: list[tuple[str, str]] = []  # what was really done: by which instance, and what


def done(instance: str) -> list[str]:
    return [what for who, what in calls if who == instance]


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    calls.clear()


@step(key="{what}")
async def book(who: str, what: str, sold_out: str) -> str:
    calls.append((who, f"book {what}"))
    if what == sold_out:
        raise LookupError(f"no {what} left")
    return f"{what} of {who}"


@step(key="{what}")
async def unbook(who: str, what: str) -> None:
    calls.append((who, f"unbook {what}"))


@workflow(linger=AT_ONCE)
async def trip(ctx: Context, sold_out: str = "") -> list[str]:
    """Bookings, each with its undo before it; then it waits."""
    booked = []
    for what in ("flight", "hotel"):
        await ctx.compensate(unbook, ctx.instance, what, key=what)
        booked.append(await book(ctx.instance, what, sold_out))
    booked.append(str(await ctx.wait_signal("approved")))
    return booked


@workflow
async def plain(ctx: Context, factor: int) -> list[Any]:
    """Steps without undos, the last of which fails."""
    moment = await ctx.now("now")
    first = await ctx.step("first", _work, ctx.instance, "first", factor)
    await ctx.emit("halfway", {"steps": 1})
    second = await ctx.step("second", _work, ctx.instance, "second", factor)
    last = await ctx.step("last", _fail_unless, ctx.instance, factor)
    return [moment.isoformat(), first, second, last]


async def _work(who: str, what: str, factor: int) -> object:
    calls.append((who, what))
    return f"{what} by {who} x{factor}"


async def _fail_unless(who: str, factor: int) -> object:
    calls.append((who, "last"))
    if factor < 10:
        raise ValueError("too small")
    return f"last by {who}"


reached: asyncio.Event
going: asyncio.Event


@workflow
async def slow_step(ctx: Context) -> list[object]:
    """A step, and one that takes long."""
    return [await ctx.step("first", _work, ctx.instance, "first", 1), await ctx.step("second", _hold, ctx.instance)]


async def _hold(who: str) -> str:
    calls.append((who, "second"))
    if who == "source":
        reached.set()
        await going.wait()
    return f"second by {who}"


@workflow
def in_a_thread(ctx: sync.Context, factor: int) -> list[Any]:
    """The same colours as users have."""
    first = ctx.step("first", _blocking, ctx.instance, factor)
    ctx.compensate(_blocking, ctx.instance, factor, key="undo")
    return [first, ctx.step("second", _blocking, ctx.instance, factor)]


def _blocking(who: str, factor: int) -> str:
    calls.append((who, "blocking"))
    return f"by {who} x{factor}"


@workflow(linger=AT_ONCE)
async def quick(ctx: Context, n: int) -> int:
    calls.append((ctx.instance, "quick"))
    return n


@workflow(linger=AT_ONCE)
async def slow(ctx: Context) -> str:
    calls.append((ctx.instance, "slow"))
    return str(await ctx.wait_signal("go"))


@workflow(linger=AT_ONCE)
async def family(ctx: Context) -> list[object]:
    return [await ctx.call(quick, n=7, key="quick"), await ctx.call(slow, key="slow")]


@workflow(linger=AT_ONCE)
async def rounds(ctx: Context, left: int) -> int:
    await ctx.step("work", _work, ctx.instance, f"round {left}", 1)
    await ctx.wait_signal("next")
    if left:
        await ctx.continue_as(left=left - 1)
    return left


@workflow(linger=AT_ONCE, timeout=SHORT)
async def limited(ctx: Context) -> str:
    await ctx.step("work", _work, ctx.instance, "work", 1)
    return str(await ctx.wait_signal("go"))


@workflow(linger=AT_ONCE)
async def napping(ctx: Context) -> str:
    await ctx.sleep("nap", SHORT)
    return str(await ctx.wait_signal("go"))


async def until(client: Client, handle: Handle[Any], status: Status) -> None:
    async def is_there() -> bool:
        advance = getattr(client, "advance", None)
        if advance is not None:
            await advance(timedelta(milliseconds=20))
        return (await handle.get()).status is status

    await eventually(is_there)


async def types(handle: Handle[Any]) -> list[str]:
    return [event.type async for event in handle.history()]


async def failed_plain(client: Client) -> Handle[list[Any]]:
    handle = await client.start(plain, factor=1, id="source")
    with pytest.raises(WorkflowFailed, match="too small"):
        await handle.result(timeout=20)
    return handle


async def test_a_failed_instance_goes_on_in_its_fork_with_another_input(host: Host) -> None:
    async with host(plain) as client:
        source = await failed_plain(client)
        fork = await source.fork(input={"factor": 10}, labels={"why": "fix"}, new_id="fixed")
        moment, first, second, last = await fork.result(timeout=20)
        assert (first, second, last) == ("first by source x1", "second by source x1", "last by fixed")
        assert done("fixed") == ["last"]
        view = await client.get("fixed")
        assert view.labels == {"why": "fix"}
        events = [event async for event in client.history("fixed")]
        assert [event.type for event in events].count("CustomEvent") == 0  # it was emitted by the source
        assert not any(event.type == "AttemptLost" for event in events)
        source_events = [event async for event in source.history()]
        assert (await source.get()).status is Status.FAILED
        assert view.forked_from == ForkedFrom(id="source", version=len(source_events))
        assert moment


async def test_a_step_that_failed_is_answered_by_hand(host: Host) -> None:
    async with host(plain) as client:
        source = await failed_plain(client)
        fork = await source.fork(set={"last": "by hand", "first": {"also": "this"}})
        assert (await fork.result(timeout=20))[1:] == [{"also": "this"}, "second by source x1", "by hand"]
        assert done(fork.id) == []
        assert fork.id.startswith("source-fork-")


async def test_without_more_what_failed_is_tried_again(host: Host) -> None:
    async with host(plain) as client:
        source = await failed_plain(client)
        fork = await source.fork()
        with pytest.raises(WorkflowFailed, match="too small"):
            await fork.result(timeout=20)
        assert done(fork.id) == ["last"]


async def test_from_a_key_on_everything_runs_again(host: Host) -> None:
    async with host(plain) as client:
        source = await failed_plain(client)
        fork = await source.fork(at="second", input={"factor": 10})
        _, first, second, _ = await fork.result(timeout=20)
        assert (first, second) == ("first by source x1", f"second by {fork.id} x10")
        assert done(fork.id) == ["second", "last"]


async def test_a_running_instance_is_forked_where_it_stands(host: Host) -> None:
    global reached, going
    reached, going = asyncio.Event(), asyncio.Event()
    async with host(slow_step) as client:
        source = await client.start(slow_step, id="source")
        await reached.wait()

        async def has_recorded() -> bool:
            return any([event.key == "first" async for event in source.history()])

        await eventually(has_recorded)
        fork = await source.fork()
        assert await fork.result(timeout=20) == ["first by source x1", f"second by {fork.id}"]
        going.set()
        assert await source.result(timeout=20) == ["first by source x1", "second by source"]


async def test_a_workflow_in_a_thread_can_be_forked(host: Host) -> None:
    async with host(in_a_thread) as client:
        source = await client.start(in_a_thread, factor=1, id="source")
        await source.result(timeout=20)
        fork = await source.fork(at="second", input={"factor": 2})
        assert await fork.result(timeout=20) == ["by source x1", f"by {fork.id} x2"]
        assert "CompensationAdded" in await types(fork)


async def test_a_fork_of_a_waiting_one_waits_for_its_own_signal(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await until(client, fork, Status.WAITING)
        await source.signal("approved", "yes")
        assert (await source.result(timeout=20))[2] == "yes"
        assert (await fork.get()).status is Status.WAITING
        await fork.signal("approved", "no")
        assert await fork.result(timeout=20) == ["flight of source", "hotel of source", "no"]
        late = await source.fork()  # of the completed one: the signal that it consumed is its answer
        assert (await late.result(timeout=20))[2] == "yes"
        assert done(fork.id) == done(late.id) == []


async def test_a_wait_can_be_answered_by_hand_while_it_is_open(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork(set={"signal~approved": "myself"})
        assert (await fork.result(timeout=20))[2] == "myself"


async def test_cancelling_a_fork_undoes_nothing_that_its_source_did(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await until(client, fork, Status.WAITING)
        await fork.cancel()
        with pytest.raises(WorkflowCancelled):
            await fork.result(timeout=20)
        assert [what for _, what in calls] == ["book flight", "book hotel"]


async def test_cancelling_a_fork_undoes_what_it_did_itself(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork(at="book/hotel")
        await until(client, fork, Status.WAITING)
        await fork.cancel()
        with pytest.raises(WorkflowCancelled):
            await fork.result(timeout=20)
        assert done(fork.id) == ["book hotel", "unbook hotel"]
        assert done("source") == ["book flight", "book hotel"]


async def test_what_was_undone_is_done_again_in_the_fork(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, sold_out="hotel", id="source")
        with pytest.raises(WorkflowFailed, match="no hotel left"):
            await source.result(timeout=20)
        assert done("source") == ["book flight", "book hotel", "unbook hotel", "unbook flight"]
        fork = await source.fork(input={"sold_out": ""})
        await until(client, fork, Status.WAITING)
        await fork.signal("approved", 1)
        assert await fork.result(timeout=20) == [f"flight of {fork.id}", f"hotel of {fork.id}", "1"]


async def test_a_fork_that_fails_undoes_its_own_part_and_can_be_forked_again(host: Host) -> None:
    async with host(trip) as client:
        source = await client.start(trip, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork(at="book/hotel", input={"sold_out": "hotel"})
        with pytest.raises(WorkflowFailed, match="no hotel left"):
            await fork.result(timeout=20)
        assert done(fork.id) == ["book hotel", "unbook hotel"]
        again = await fork.fork(input={"sold_out": ""})
        await until(client, again, Status.WAITING)
        assert done(again.id) == ["book hotel"]  # the flight is still the source's
        await again.cancel()
        with pytest.raises(WorkflowCancelled):
            await again.result(timeout=20)
        assert done(again.id) == ["book hotel", "unbook hotel"]


async def test_children_that_ended_are_not_run_again_and_open_ones_are_others(host: Host) -> None:
    async with host(family, quick, slow) as client:
        source = await client.start(family, id="source")
        await eventually(lambda: len(calls) == 2)
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await eventually(lambda: len(calls) == 3)
        (theirs, ours) = [who for who, what in calls if what == "slow"]
        assert theirs != ours
        assert [what for _, what in calls].count("quick") == 1
        await client.signal(ours, "go", "on")
        assert await fork.result(timeout=20) == [7, "on"]
        assert (await client.get(theirs)).status is Status.WAITING


async def test_cancelling_a_fork_cancels_its_own_children_only(host: Host) -> None:
    async with host(family, quick, slow) as client:
        source = await client.start(family, id="source")
        await eventually(lambda: len(calls) == 2)
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await eventually(lambda: len(calls) == 3)
        (theirs, ours) = [who for who, what in calls if what == "slow"]
        await until(client, fork, Status.WAITING)
        await fork.cancel()
        with pytest.raises(WorkflowCancelled):
            await client.handle(ours).result(timeout=20)
        assert (await client.get(theirs)).status is Status.WAITING
        children = [who for who, what in calls if what == "quick"]
        assert (await client.get(children[0])).status is Status.COMPLETED


async def test_a_fork_can_continue_as_another_round_and_be_retried(host: Host) -> None:
    async with host(rounds, plain) as client:
        source = await client.start(rounds, left=1, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        for _ in range(2):
            await until(client, fork, Status.WAITING)
            await fork.signal("next")
        assert await fork.result(timeout=20) == 0
        assert done(fork.id) == ["round 0"]
        failed = await client.start(plain, factor=1, id="failing")
        with pytest.raises(WorkflowFailed):
            await failed.result(timeout=20)
        other = await failed.fork()
        with pytest.raises(WorkflowFailed):
            await other.result(timeout=20)
        await other.retry()
        with pytest.raises(WorkflowFailed):
            await other.result(timeout=20)
        assert done(other.id) == ["last", "last"]


async def test_a_fork_of_a_later_round_begins_in_that_round(host: Host) -> None:
    async with host(rounds) as client:
        source = await client.start(rounds, left=1, id="source")
        await until(client, source, Status.WAITING)
        await source.signal("next")
        await eventually(lambda: done("source") == ["round 1", "round 0"])
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await fork.signal("next")
        assert await fork.result(timeout=20) == 0
        assert done(fork.id) == []


async def test_the_time_of_a_fork_begins_anew(host: Host) -> None:
    async with host(limited) as client:
        source = await client.start(limited, id="source")
        with pytest.raises(WorkflowTimeout):
            await source.result(timeout=20)
        fork = await source.fork()
        await fork.signal("go", "in time")
        assert await fork.result(timeout=20) == "in time"
        assert done(fork.id) == []


async def test_a_sleep_that_is_over_is_not_slept_again(host: Host) -> None:
    async with host(napping) as client:
        source = await client.start(napping, id="source")
        await until(client, source, Status.WAITING)
        fork = await source.fork()
        await until(client, fork, Status.WAITING)
        assert "SleepStarted" not in await types(fork)
        again = await source.fork(at="nap")
        await until(client, again, Status.WAITING)
        assert "SleepStarted" in await types(again)


async def test_what_cannot_be_forked_is_told_clearly(host: Host) -> None:
    async with host(plain, napping) as client:
        source = await failed_plain(client)
        with pytest.raises(UnknownKey, match="did you mean 'second'"):
            await source.fork(at="secnd")
        with pytest.raises(UnknownKey, match="'nothing'"):
            await source.fork(set={"nothing": 1})
        with pytest.raises(InstanceNotFound):
            await client.fork("nobody")
        await client.fork("source", new_id="taken")
        for id in ("taken", "source"):
            with pytest.raises(StartConflict):
                await client.fork("source", new_id=id)
        sleeper = await client.start(napping, id="sleeper")
        await until(client, sleeper, Status.WAITING)
        with pytest.raises(BadInput, match="sleep"):
            await sleeper.fork(set={"nap": 1})
        await client.forget_workflow("plain")

        async def is_forgotten() -> bool:
            try:
                await client.fork("source")
            except UnknownWorkflow:
                return True
            return False

        await eventually(is_forgotten)


async def test_many_forks_of_one_at_once(host: Host) -> None:
    async with host(plain) as client:
        source = await failed_plain(client)
        forks = await asyncio.gather(*(source.fork(set={"last": n}) for n in range(20)))
        results = await asyncio.gather(*(fork.result(timeout=20) for fork in forks))
        assert [result[3] for result in results] == list(range(20))
        assert len({fork.id for fork in forks}) == 20
