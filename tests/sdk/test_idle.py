"""What can be shown to only wait leaves memory; what cannot stays."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.records import Failed, StepFailure, Suspended
from runtara.sdk import Context, Retry, step, sync, workflow
from runtara.sdk.idle import LOOK_AFTER_SECONDS
from tests.support.outlet import MemoryOutlet, execution

from .test_waits import Life

Code = Callable[[Context], Awaitable[Any]]
DAY = timedelta(days=1)
AT_ONCE = timedelta(0)
LONG_ENOUGH = LOOK_AFTER_SECONDS * 5


async def wait_for(ctx: Context, name: str) -> Any:
    return await ctx.wait_signal(name)


async def simple(ctx: Context) -> None:
    await wait_for(ctx, "a")


async def gathered(ctx: Context) -> None:
    await asyncio.gather(wait_for(ctx, "a"), wait_for(ctx, "b"), asyncio.gather(wait_for(ctx, "c")))


async def grouped(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for(ctx, "a"))
        group.create_task(wait_for(ctx, "b"))


async def waited(ctx: Context) -> None:
    tasks = [asyncio.create_task(wait_for(ctx, name)) for name in "ab"]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def awaited(ctx: Context) -> None:
    task = asyncio.create_task(gathered(ctx))
    await task


async def loose(ctx: Context) -> None:
    task = asyncio.create_task(wait_for(ctx, "a"))
    await ctx.wait_signal("b")
    await task


async def mixed(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        inner = group.create_task(wait_for(ctx, "a"))
        group.create_task(asyncio.wait_for(inner, None))
        await ctx.sleep("b", DAY)


async def with_memory(ctx: Context) -> None:
    await ctx.step("s", lambda: 1)
    done, _ = await asyncio.wait([asyncio.create_task(asyncio.sleep(0))])
    assert len(done) == 1
    await ctx.wait_signal("a")


IDLE: dict[Code, str] = {
    simple: "a", gathered: "abc", grouped: "ab", waited: "ab", awaited: "abc", loose: "ab", mixed: "ab",
    with_memory: "a",
}  # fmt: skip


@pytest.mark.parametrize("code", IDLE, ids=lambda code: code.__name__)
async def test_what_only_waits_is_suspended_on_all_that_it_waits_for(code: Code) -> None:
    life = Life(workflow(name="code", linger=AT_ONCE)(code))  # type: ignore[arg-type]
    last = (await life.end()).last
    assert isinstance(last, Suspended)
    assert (last.reason, sorted(key.removeprefix("signal~") for key in last.keys)) == ("parked", sorted(IDLE[code]))


async def polling(ctx: Context) -> None:
    async def poll() -> None:
        while True:
            await asyncio.sleep(0.005)

    await asyncio.gather(wait_for(ctx, "a"), poll())


async def with_a_time_limit(ctx: Context) -> None:
    async with asyncio.timeout(60):
        await ctx.wait_signal("a")


async def wait_for_a_minute(ctx: Context) -> None:
    await asyncio.wait_for(wait_for(ctx, "a"), 60)


async def waiting_for_a_minute(ctx: Context) -> None:
    await asyncio.wait([asyncio.create_task(wait_for(ctx, "a"))], timeout=60)


async def on_an_event(ctx: Context) -> None:
    await asyncio.gather(wait_for(ctx, "a"), asyncio.Event().wait())


async def on_a_lock(ctx: Context) -> None:
    free = asyncio.Semaphore(1)

    async def one(name: str) -> None:
        async with free:
            await ctx.wait_signal(name)

    await asyncio.gather(one("a"), one("b"))


async def on_a_future_of_somebody_elses(ctx: Context) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.wait([asyncio.create_task(wait_for(ctx, "a")), future], return_when=asyncio.FIRST_COMPLETED)


async def in_a_step(ctx: Context) -> None:
    await ctx.step("s", lambda: ctx.wait_signal("a"))


async def in_a_foreign_thread(ctx: Context) -> None:
    await asyncio.gather(wait_for(ctx, "a"), asyncio.to_thread(threading.Event().wait, 0.3))


BUSY = [
    polling, with_a_time_limit, wait_for_a_minute, waiting_for_a_minute, on_an_event, on_a_lock,
    on_a_future_of_somebody_elses, in_a_step, in_a_foreign_thread,
]  # fmt: skip


@pytest.mark.parametrize("code", BUSY, ids=lambda code: code.__name__)
async def test_what_cannot_be_shown_to_only_wait_stays_in_memory(code: Code) -> None:
    life = Life(workflow(name="code", linger=AT_ONCE)(code))  # type: ignore[arg-type]
    await life.parked("signal~a")
    done, _ = await asyncio.wait([life.task], timeout=LONG_ENOUGH)
    assert not done
    life.attempt.stop("cancel")
    await life.end()


async def test_a_def_workflow_leaves_its_thread() -> None:
    @workflow(linger=AT_ONCE)
    def code(ctx: sync.Context) -> None:
        ctx.wait_signal("a")

    assert (await Life(code).end()).last.keys == ("signal~a",)


async def test_a_thread_that_works_keeps_the_instance() -> None:
    go_on = threading.Event()

    @workflow(linger=AT_ONCE)
    async def code(ctx: Context) -> None:
        await asyncio.gather(wait_for(ctx, "a"), ctx.run_in_thread(go_on.wait))

    life = Life(code)
    await life.parked("signal~a")
    await asyncio.wait([life.task], timeout=LONG_ENOUGH)
    assert not life.task.done()
    go_on.set()
    assert (await life.end()).last.keys == ("signal~a",)


async def test_it_stays_for_as_long_as_it_is_to_linger_and_not_at_all_if_it_is_woken_before() -> None:
    idle: list[bool] = []

    @workflow(linger=timedelta(seconds=0.1))
    async def code(ctx: Context) -> str:
        await ctx.wait_signal("a")
        return "in memory"

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    attempt._idleness._on_change = idle.append
    task = asyncio.ensure_future(attempt.run())
    while not idle:
        await asyncio.sleep(0.001)
    assert attempt._idleness.is_idle
    from tests.support.outlet import outcome

    attempt.resolved(outcome("signal~a", "signal"))
    await asyncio.wait_for(task, 5)
    assert (outlet.result, idle) == ("in memory", [True, False])


async def test_a_sleep_that_ends_soon_is_slept_in_memory() -> None:
    @workflow(linger=timedelta(seconds=0.05))
    async def code(ctx: Context) -> int:
        await ctx.sleep(timedelta(seconds=0.12))
        return 1

    assert (await Life(code).end()).result == 1


@step(key="s", retry=Retry(max_attempts=3, initial=DAY, max_delay=DAY, jitter=0))
async def fails() -> None:
    raise OSError("disk")


async def test_a_step_whose_next_try_is_far_away_leaves_memory_and_waits_on_when_it_is_back() -> None:
    @workflow(linger=AT_ONCE)
    async def code(ctx: Context) -> None:
        await asyncio.gather(fails(), wait_for(ctx, "a"))

    outlet = await Life(code).end()
    assert sorted(outlet.last.keys) == ["fails/s", "signal~a"]
    assert [(record.n, record.for_us) for record in outlet.all(StepFailure)] == [(1, DAY // timedelta(microseconds=1))]
    again = await Life(code, memos=list(outlet.memos())).end()
    assert [type(record) for record in again.records] == [Suspended], "its next try is not due"
    assert sorted(again.last.keys) == ["fails/s", "signal~a"]


async def test_a_step_whose_next_try_is_near_waits_for_it_in_memory() -> None:
    @workflow(linger=timedelta(seconds=0.05))
    async def code(ctx: Context) -> None:
        await step(retry=Retry(max_attempts=2, initial=timedelta(seconds=0.1), jitter=0))(fails)()

    outlet = await Life(code).end()
    assert [type(record) for record in outlet.records] == [StepFailure, StepFailure, Failed]


async def test_the_end_of_its_time_wakes_a_suspended_workflow() -> None:
    @workflow(linger=AT_ONCE, timeout=DAY)
    async def code(ctx: Context) -> None:
        await ctx.wait_signal("a")

    assert (await Life(code).end()).last.keys == ("signal~a", "~timeout")


async def test_memory_that_is_short_ends_the_lingering() -> None:
    @workflow(linger=DAY)
    async def code(ctx: Context) -> None:
        await ctx.wait_signal("a")

    life = Life(code)
    await life.parked("signal~a")
    await asyncio.sleep(0)
    life.attempt.leave_if_idle()
    assert (await life.end()).last.keys == ("signal~a",)
