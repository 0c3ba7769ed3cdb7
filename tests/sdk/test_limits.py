"""A time limit that is in the log."""

from datetime import timedelta

import pytest

from runtara.protocol.errors import StepTimeout, WorkflowFailed
from runtara.sdk import Context, step, workflow
from runtara.sdk.limits import within
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe

LIMIT = timedelta(hours=2)


@step
async def note(n: int) -> int:
    return n


@workflow
async def hurried(ctx: Context, hours: int) -> str:
    async def body() -> int:
        for n in range(hours):
            await note(n)
            await ctx.sleep(f"hour-{n}", timedelta(hours=1))
        return await note(hours)

    try:
        done = await within(ctx, "limit", LIMIT, body)
    except StepTimeout as exc:
        await note(-1)
        return f"late after {exc.seconds:g}"
    return f"done {done}"


@pytest.mark.parametrize(("hours", "result"), [(0, "done 0"), (1, "done 1"), (3, "late after 7200")])
async def test_body_or_limit_whichever_comes_first_and_whatever_crashes(hours: int, result: str) -> None:
    report = await assert_crash_safe(hurried, hours=hours, effects=[note])
    assert report.result == result


async def test_an_instance_that_only_waits_within_a_limit_leaves_memory() -> None:
    async with MemoryPlatform() as platform:
        handle = await platform.start(hurried, hours=3)
        assert await handle.result() == "late after 7200"
        types = [event.type for event in platform.log(handle.id)]
    assert types.count("InstanceSuspended") >= 2


@workflow
async def outer_limit(ctx: Context) -> str:
    async def inner() -> str:
        await within(ctx, "inner", timedelta(hours=5), lambda: ctx.sleep("long", timedelta(hours=4)))
        return "slept"

    try:
        return await within(ctx, "outer", timedelta(hours=1), inner)
    except StepTimeout as exc:
        return str(exc.attributes["key"])


async def test_the_outer_limit_ends_the_inner_one() -> None:
    report = await assert_crash_safe(outer_limit)
    assert report.result == "outer"


@workflow
async def failing(ctx: Context) -> None:
    async def body() -> None:
        raise ValueError("no luck")

    await within(ctx, "limit", LIMIT, body)


async def test_what_the_body_raises_comes_through() -> None:
    async with MemoryPlatform() as platform:
        with pytest.raises(WorkflowFailed, match="ValueError: no luck"):
            await (await platform.start(failing)).result()
