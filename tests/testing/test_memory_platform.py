"""The platform in memory, as tests of workflows use it."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from runtara.protocol.errors import ChildFailed, InvalidTarget, Refused, WorkflowCancelled
from runtara.protocol.messages import Status
from runtara.sdk import Context, Retry, SignalTimeout, Workflow, step, sync, workflow
from runtara.sdk.testing import MemoryPlatform, Stuck
from runtara.sdk.testing import platform as platform_module

DAYS = timedelta(days=3)


@step
async def greet(name: str) -> str:
    return f"hello {name}"


@workflow
async def onboard(ctx: Context, name: str) -> list[str]:
    said = await greet(name)
    await ctx.sleep("trial", DAYS)
    return [said, (await ctx.now("after")).isoformat()]


@workflow
async def approval(ctx: Context) -> str:
    try:
        return await ctx.wait_signal("approved", type=str, timeout=timedelta(days=7))
    except SignalTimeout:
        return "nobody"


async def test_a_sleep_of_three_days_takes_no_time() -> None:
    async with MemoryPlatform() as platform:
        began = time.perf_counter()
        handle = await platform.start(onboard, name="ada")
        assert await handle.result() == ["hello ada", "2026-01-04T00:00:00+00:00"]
        assert time.perf_counter() - began < 5
        assert platform.now == datetime(2026, 1, 4, tzinfo=UTC)
        assert "InstanceSuspended" in [event.type for event in platform.log(handle.id)]


async def test_time_stands_still_until_somebody_waits() -> None:
    async with MemoryPlatform(now=datetime(2030, 5, 1, tzinfo=UTC)) as platform:
        handle = await platform.start(approval)
        await platform.settle()
        assert platform.now == datetime(2030, 5, 1, tzinfo=UTC)
        await platform.advance(timedelta(days=6))
        assert (await handle.get()).status is Status.WAITING
        await platform.signal(handle.id, "approved", "by ada")
        assert await handle.result() == "by ada"
        assert platform.now == datetime(2030, 5, 7, tzinfo=UTC)


async def test_advancing_lets_everything_happen_that_is_due_by_then_and_no_more() -> None:
    async with MemoryPlatform() as platform:
        first, second = await platform.start(approval), await platform.start(onboard, name="bob")
        await platform.advance(timedelta(days=3))
        assert (await second.get()).status is Status.COMPLETED
        assert (await first.get()).status is Status.WAITING
        await platform.advance(timedelta(days=4, hours=1))
        assert await first.result() == "nobody"
        with pytest.raises(ValueError, match="does not run back"):
            await platform.advance(-DAYS)


async def test_several_results_are_waited_for_at_once_in_the_order_of_time() -> None:
    ended: list[str] = []

    async def follow(name: str, days: int) -> None:
        @workflow(name=name)
        async def nap(ctx: Context) -> None:
            await ctx.sleep(timedelta(days=days))

        await (await platform.start(nap)).result()
        ended.append(name)

    async with MemoryPlatform() as platform:
        await asyncio.gather(follow("long", 30), follow("short", 1), follow("middle", 7))
        assert ended == ["short", "middle", "long"]
        assert platform.now == datetime(2026, 1, 31, tzinfo=UTC)


async def test_retries_wait_by_the_platforms_clock() -> None:
    tries: list[datetime] = []

    async with MemoryPlatform() as platform:

        @step(retry=Retry(max_attempts=3, initial=timedelta(hours=1), jitter=0, max_delay=DAYS))
        async def flaky() -> int:
            tries.append(platform.now)
            if len(tries) < 3:
                raise RuntimeError("not yet")
            return len(tries)

        @workflow
        async def persistent(ctx: Context) -> int:
            return await flaky()

        assert await (await platform.start(persistent)).result() == 3
    assert [(at - tries[0]) / timedelta(hours=1) for at in tries] == [0, 1, 3]


async def test_a_workflow_in_a_thread_sleeps_and_waits_as_well() -> None:
    @workflow
    def blocking(ctx: sync.Context) -> str:
        ctx.sleep("night", timedelta(hours=8))
        return ctx.wait_signal("wake", type=str)

    async with MemoryPlatform() as platform:
        handle = await platform.start(blocking)
        await platform.signal(handle.id, "wake", "coffee")
        assert await handle.result() == "coffee"
        assert platform.now == datetime(2026, 1, 1, 8, tzinfo=UTC)


async def test_a_step_that_really_works_is_not_overtaken_by_time() -> None:
    """A step beside a sleep: the step takes real time, in which the clock stands still."""
    order: list[str] = []

    @step
    async def work() -> None:
        await asyncio.sleep(0.1)
        order.append("worked")

    @workflow
    async def both(ctx: Context) -> None:
        async def nap() -> None:
            await ctx.sleep(DAYS)
            order.append("slept")

        await asyncio.gather(work(), nap())

    async with MemoryPlatform() as platform:
        await (await platform.start(both)).result()
    assert order == ["worked", "slept"]


async def test_a_step_that_waits_for_the_test_is_left_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_module, "STEP_SECONDS", 0.01)
    released = asyncio.Event()

    @step
    async def held() -> str:
        await released.wait()
        return "done"

    @workflow
    async def holding(ctx: Context) -> str:
        return await greet(await held())

    async with MemoryPlatform() as platform:
        handle = await platform.start(holding)
        await platform.settle()
        await handle.pause()
        released.set()
        await platform.settle()
        assert (await handle.get()).status is Status.PAUSED
        await handle.resume()
        assert await handle.result() == "hello done"


async def test_branches_that_wait_for_each_other_do_not_stop_time() -> None:
    @workflow
    async def handshake(ctx: Context) -> str:
        ready, limit = asyncio.Event(), asyncio.Semaphore(1)

        async def early(n: int) -> None:
            async with limit:
                await ctx.sleep(f"night {n}", timedelta(hours=8))
            ready.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(early(1))
            group.create_task(early(2))
            await ready.wait()
        return "ok"

    async with MemoryPlatform() as platform:
        assert await (await platform.start(handshake)).result() == "ok"


async def test_children_are_hosted_if_the_platform_knows_them() -> None:
    @workflow
    async def parent(ctx: Context) -> list[str]:
        return (await ctx.call(onboard, name="child"))[:1]

    async with MemoryPlatform(onboard) as platform:
        assert await (await platform.start(parent)).result() == ["hello child"]
    async with MemoryPlatform() as platform:
        with pytest.raises(Exception, match="no worker has ever registered a workflow named 'onboard'") as caught:
            await (await platform.start(parent)).result()
        assert caught.value.attributes["type"] == ChildFailed.__name__  # type: ignore[attr-defined]


async def test_a_process_that_dies_is_followed_by_one_that_goes_on() -> None:
    ran: list[str] = []

    @step
    async def once(what: str) -> str:
        ran.append(what)
        return what

    @workflow
    async def two(ctx: Context) -> str:
        first = await once("first")
        await ctx.wait_signal("go")
        return first + await once("second")

    async with MemoryPlatform() as platform:
        handle = await platform.start(two)
        await platform.settle()
        await platform.crash()
        await platform.signal(handle.id, "go")
        assert await handle.result() == "firstsecond"
        assert ran == ["first", "second"]
        assert [event.type for event in platform.log(handle.id)].count("AttemptLost") == 1
        assert (await handle.get()).restarts == 1


async def test_waiting_for_what_nothing_can_bring_about_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_module, "STUCK_SECONDS", 0.05)

    @workflow
    async def forever(ctx: Context) -> None:
        await ctx.wait_signal("approved")

    async with MemoryPlatform() as platform:
        handle = await platform.start(forever, id="f-1")
        with pytest.raises(Stuck, match="f-1 is waiting on signal 'approved'"):
            await handle.result()
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result()


async def test_a_signal_from_another_task_ends_a_wait_without_a_time_out() -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        return await ctx.wait_signal("go", type=str)

    async with MemoryPlatform() as platform:
        handle = await platform.start(patient)
        waiting = asyncio.create_task(handle.result())
        await platform.settle()
        await platform.signal(handle.id, "go", "now")
        assert await waiting == "now"


async def test_two_workflows_of_one_name_are_refused() -> None:
    def made(answer: int) -> Workflow[[], int]:
        @workflow(name="twin")
        async def twin(ctx: Context) -> int:
            return answer

        return twin

    with pytest.raises(InvalidTarget, match="has this name, too"):
        MemoryPlatform(made(1), made(2))


async def test_leaving_ends_what_still_runs() -> None:
    cleaned: list[str] = []

    @workflow
    async def endless(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    async with MemoryPlatform() as platform:
        await platform.start(endless)
        await platform.settle()
    await asyncio.sleep(0)
    assert cleaned == ["up"]


async def test_the_same_test_gives_the_same_events() -> None:
    async def events() -> list[object]:
        async with MemoryPlatform() as platform:
            handle = await platform.start(onboard, name="ada", id="o-1")
            await handle.result()
            return [(event.type, event.at, bytes(event.data)) for event in platform.log("o-1")]

    assert await events() == await events()


async def test_it_says_that_it_has_no_schedules_and_no_definitions() -> None:
    async with MemoryPlatform(onboard) as platform:
        with pytest.raises(Refused, match="no definitions; host what"):
            await platform.definitions.list()
        with pytest.raises(Refused, match="no schedules; start by hand"):
            await platform.schedules.create("nightly", onboard, {"name": "ada"}, cron="0 3 * * *")


async def test_the_fixture_is_a_platform_in_the_tests_own_loop(runtara_platform: MemoryPlatform) -> None:
    handle = await runtara_platform.start(onboard, name="ada")
    assert (await handle.result())[0] == "hello ada"


def _imported(code: str) -> set[str]:
    script = f"import sys; {code}; print(*(name for name in sys.modules if name.split('.')[0] in sys.argv[1:]))"
    names = ("runtara", "asyncpg", "sqlalchemy", "alembic", "nats", "msgspec")
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_plugin_costs_other_test_runs_nothing() -> None:
    assert _imported("import runtara.pytest_plugin") <= {"runtara", "runtara.pytest_plugin"}


def test_the_kit_needs_no_database() -> None:
    imported = _imported("import runtara.sdk.testing")
    assert {name.split(".")[0] for name in imported} == {"runtara", "nats", "msgspec"}
    assert not {name for name in imported if name.startswith(("runtara.projections", "runtara.engine.log"))}


async def test_a_script_sleeps_three_days_in_no_time_and_goes_on_after_a_kill() -> None:
    async with MemoryPlatform() as platform:
        began = platform.now
        async with platform.instance("b-1") as first:
            await first.register()
            await first.durable_sleep("nap", timedelta(days=3))
            assert platform.now - began == timedelta(days=3)
            with pytest.raises(SignalTimeout):
                await first.wait_signal("go", timeout=timedelta(days=1))
        # closed without a last record: it was killed
        async with platform.instance("b-1") as second:
            await second.register()
            assert (await second.durable_sleep("nap", timedelta(days=3))).existing
            assert platform.now - began == timedelta(days=4)
            await second.completed("done")
        assert await platform.handle("b-1").result() == "done"


async def test_a_script_that_nobody_will_signal_is_told_so() -> None:
    async with MemoryPlatform() as platform, platform.instance("b-1") as script:
        await script.register()
        with pytest.raises(Stuck, match="b-1 is running"):
            await script.wait_signal("never")
