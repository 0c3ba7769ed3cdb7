"""What a client may rely on, on the real platform and in memory: the same answers, the same errors."""

from datetime import timedelta

import pytest

from runtara.protocol.errors import (
    IllegalTransition,
    InstanceNotFound,
    InvalidInput,
    ResultTimeout,
    StartConflict,
    UnknownWorkflow,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTimeout,
)
from runtara.protocol.messages import Status
from runtara.sdk import Context, workflow
from tests.support.polling import eventually

from .conftest import Host
from .flows import approval, failing, napping, steps

pytestmark = pytest.mark.timeout(60)


@workflow(timeout=timedelta(milliseconds=100), linger=timedelta(0))
async def too_slow(ctx: Context) -> None:
    await ctx.sleep(timedelta(days=1))


async def test_the_same_start_again_is_the_same_instance_and_another_is_a_conflict(host: Host) -> None:
    async with host(steps) as client:
        first = await client.start(steps, n=1, id="s-1")
        again = await client.start("steps", {"n": 1}, id="s-1")
        assert await first.result(timeout=20) == await again.result(timeout=20) == 3
        with pytest.raises(StartConflict):
            await client.start(steps, n=2, id="s-1")
        with pytest.raises(InvalidInput):
            await client.start(steps, n="two", id="s-2")


async def test_what_there_is_not_is_said_with_what_is_near(host: Host) -> None:
    async with host(steps) as client:
        await (await client.start(steps, n=1)).result(timeout=20)
        with pytest.raises(UnknownWorkflow, match="did you mean 'steps'"):
            await client.start("step", {"n": 1})
        for asking in (client.signal("nobody", "go"), client.get("nobody"), client.handle("nobody").result(timeout=5)):
            with pytest.raises(InstanceNotFound):
                await asking


async def test_results_that_are_none_come_as_their_errors(host: Host) -> None:
    async with host(failing, too_slow, approval) as client:
        with pytest.raises(WorkflowFailed, match="Declined: never"):
            await (await client.start(failing, id="f-1")).result(timeout=20)
        with pytest.raises(WorkflowTimeout):
            await (await client.start(too_slow, id="t-1")).result(timeout=20)
        waiting = await client.start(approval, patience=3600.0, id="a-1")
        await waiting.cancel(reason="too late")
        with pytest.raises(WorkflowCancelled, match="too late"):
            await waiting.result(timeout=20)
        with pytest.raises(IllegalTransition):
            await waiting.pause()


async def test_a_result_that_takes_too_long_says_how_far_it_is(host: Host) -> None:
    async with host(approval) as client:
        handle = await client.start(approval, patience=3600.0, id="a-1")

        async def is_under_way() -> bool:
            return (await client.get("a-1")).status in (Status.RUNNING, Status.WAITING)

        await eventually(is_under_way)
        with pytest.raises(ResultTimeout, match=r"still (running|waiting) after 0\.2 s"):
            await handle.result(timeout=0.2)
        await client.signal("a-1", "approved", "yes")
        assert await handle.result(timeout=20) == "yes"


async def test_lists_can_be_narrowed_and_come_in_pages(host: Host) -> None:
    async with host(steps) as client:
        handles = [await client.start(steps, n=n, id=f"s-{n}", labels={"odd": str(n % 2)}) for n in range(5)]
        for handle in handles:
            await handle.result(timeout=20)
        assert {view.id for view in (await client.list(labels={"odd": "1"})).instances} == {"s-1", "s-3"}
        assert (await client.list(status=Status.FAILED)).instances == []
        first = await client.list(limit=3)
        second = await client.list(limit=3, cursor=first.next)
        assert [view.id for view in (*first.instances, *second.instances)] == [f"s-{n}" for n in (4, 3, 2, 1, 0)]
        assert second.next is None
        assert [view.id for view in await client.workflows()] == ["steps"]


async def test_events_are_followed_to_the_end(host: Host) -> None:
    async with host(napping) as client:
        handle = await client.start(napping, id="n-1")
        followed = [event.type async for event in handle.events()]
        assert followed[0] == "InstanceCreated"
        assert followed[-1] == "InstanceCompleted"
        assert followed == [event.type async for event in handle.history()]


async def test_a_retry_is_waited_for_anew(host: Host) -> None:
    async with host(failing) as client:
        handle = await client.start(failing, id="f-1")
        with pytest.raises(WorkflowFailed):
            await handle.result(timeout=20)
        await client.retry("f-1")
        with pytest.raises(WorkflowFailed):
            await client.handle("f-1").result(timeout=20)
        types = [event.type async for event in client.history("f-1")]
        assert (types.count("InstanceRetried"), types.count("InstanceFailed")) == (1, 2)


async def test_a_signal_starts_what_is_not_there(host: Host) -> None:
    async with host(approval) as client:
        first = await client.start_or_signal(approval, patience=3600.0, id="a-1", signal="approved", data="yes")
        assert await first.result(timeout=20) == "yes"
        with pytest.raises(IllegalTransition):
            await client.start_or_signal(approval, patience=3600.0, id="a-1", signal="approved", data="again")


async def test_a_paused_instance_says_so_and_goes_on(host: Host) -> None:
    async with host(approval) as client:
        handle = await client.start(approval, patience=3600.0, id="a-1")
        await handle.pause()

        async def is_paused() -> bool:
            return (await handle.get()).status is Status.PAUSED

        await eventually(is_paused)
        await client.signal("a-1", "approved", 1)
        await handle.resume()
        assert await handle.result(timeout=20) == 1
