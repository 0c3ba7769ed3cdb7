"""Code that does not end when it is told to: threads are interrupted, and what still goes on is told."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.errors import StepTimeout, Stopped
from runtara.protocol.records import Cancelled, Completed
from runtara.sdk import Context, step, sync, workflow
from runtara.sdk import overdue as overdue_module
from runtara.sdk import tasks as tasks_module
from runtara.sdk.execution import Execution
from runtara.sdk.overdue import MAX_OVERDUE_THREADS, Overdue
from runtara.sdk.workflow import Workflow
from tests.support.outlet import MemoryOutlet, execution
from tests.support.polling import eventually


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grace is over soon."""
    monkeypatch.setattr(tasks_module, "NEXT_CALL_SECONDS", 0.05)
    monkeypatch.setattr(tasks_module, "CANCEL_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(overdue_module, "CANCEL_GRACE_SECONDS", 0.05)


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """Lets go what a test has blocked, also when it fails."""
    event = threading.Event()
    yield event
    event.set()


class Told:
    """What was said to be too much."""

    def __init__(self) -> None:
        self.what: list[str] = []
        self.overdue = Overdue(self.what.append)


def begun(code: Workflow[..., Any], told: Told) -> tuple[MemoryOutlet, Execution, "asyncio.Task[None]"]:
    outlet = MemoryOutlet()
    attempt = execution(code, outlet, overdue=told.overdue)
    return outlet, attempt, asyncio.create_task(attempt.run())


async def test_a_blocking_workflow_that_makes_no_call_is_interrupted(quick: None) -> None:
    ready, told = threading.Event(), Told()
    seen: list[str] = []

    @workflow
    def code(ctx: sync.Context) -> None:
        ready.set()
        try:
            while True:
                pass
        except Exception:
            seen.append("taken for an error")
        finally:
            seen.append(f"cleaned up: {ctx.stopping}")

    outlet, attempt, task = begun(code, told)
    await asyncio.to_thread(ready.wait, 5)
    attempt.stop("cancel")
    await asyncio.wait_for(task, 5)
    assert seen == ["cleaned up: cancel"]
    assert [type(record) for record in outlet.records] == [Cancelled]
    assert told.what == []


async def test_a_step_that_computes_for_ever_is_interrupted_in_whatever_thread_it_runs(quick: None) -> None:
    for kind in ("of its own", "the workflow's"):
        ready, told = threading.Event(), Told()
        seen: list[str] = []

        def compute(ready: threading.Event = ready, seen: list[str] = seen) -> None:
            ready.set()
            try:
                while True:
                    pass
            except Stopped:
                seen.append("stopped")
                raise

        async def code(ctx: Context, compute: Callable[[], None] = compute) -> None:
            await ctx.step("s", compute)

        def blocking(ctx: sync.Context, compute: Callable[[], None] = compute) -> None:
            ctx.step("s", compute)

        flow = workflow(name="code")(code) if kind == "of its own" else workflow(name="code")(blocking)
        outlet, attempt, task = begun(flow, told)
        await asyncio.to_thread(ready.wait, 5)
        attempt.stop("superseded")
        await asyncio.wait_for(task, 5)
        assert (seen, outlet.records, told.what) == (["stopped"], [], []), kind


async def test_a_thread_that_comes_to_its_next_call_in_time_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "NEXT_CALL_SECONDS", 30.0)
    ready, go_on, told = threading.Event(), threading.Event(), Told()
    seen: list[str] = []

    @workflow
    def code(ctx: sync.Context) -> None:
        ready.set()
        go_on.wait(5)
        seen.append("at my own pace")
        ctx.checkpoint("c", 1)

    _, attempt, task = begun(code, told)
    await asyncio.to_thread(ready.wait, 5)
    attempt.stop("cancel")
    go_on.set()
    await asyncio.wait_for(task, 5)
    assert seen == ["at my own pace"]


async def test_a_step_whose_time_is_up_ends(quick: None) -> None:
    told = Told()
    seen: list[str] = []

    @step(timeout=timedelta(milliseconds=30))
    def endless() -> None:
        try:
            while True:
                pass
        finally:
            seen.append("ended")

    @workflow
    async def code(ctx: Context) -> str:
        with pytest.raises(StepTimeout):
            await ctx.step("s", endless)
        return "went on"

    outlet, _, task = begun(code, told)
    await asyncio.wait_for(task, 5)
    assert isinstance(outlet.last, Completed)
    assert (seen, told.what) == (["ended"], [])


async def test_async_code_that_swallows_its_cancellation_is_told_and_still_waited_for(quick: None) -> None:
    ready, go_on, told = asyncio.Event(), asyncio.Event(), Told()

    @workflow
    async def code(ctx: Context) -> None:
        ready.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    outlet, attempt, task = begun(code, told)
    await ready.wait()
    attempt.stop("cancel")
    await eventually(lambda: told.what == ["code of instance i-1 does not end"])
    assert attempt.residents.is_overdue
    assert [type(record) for record in outlet.records] == [Cancelled]
    assert not task.done()
    go_on.set()
    await asyncio.wait_for(task, 5)


async def test_a_thread_that_is_blocked_outside_of_python_is_told(quick: None, go_on: threading.Event) -> None:
    ready, told, lock = threading.Event(), Told(), threading.Lock()

    @workflow
    def code(ctx: sync.Context) -> None:
        ready.set()
        lock.acquire()

    lock.acquire()
    _, attempt, task = begun(code, told)
    await asyncio.to_thread(ready.wait, 5)
    attempt.stop("drain")
    attempt.stop("drain")
    await eventually(lambda: told.what == ["code of instance i-1 does not end"])
    lock.release()
    await asyncio.wait_for(task, 5)


async def test_threads_that_time_outs_leave_behind_are_borne_up_to_a_number(
    quick: None, go_on: threading.Event
) -> None:
    told = Told()

    @step(key="{n}", timeout=timedelta(milliseconds=20))
    def blocked(n: int) -> None:
        while not go_on.is_set():
            with contextlib.suppress(Stopped):
                go_on.wait()

    @workflow
    async def code(ctx: Context, count: int) -> None:
        await asyncio.gather(*(ctx.step(f"s{n}", blocked, n) for n in range(count)), return_exceptions=True)
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    async def run(count: int) -> "asyncio.Task[None]":
        attempt = execution(code, MemoryOutlet(), {"count": count}, overdue=told.overdue)
        return asyncio.create_task(attempt.run())

    first = await run(MAX_OVERDUE_THREADS)
    await eventually(lambda: len(told.overdue._threads) == MAX_OVERDUE_THREADS)
    assert told.what == []
    second = await run(1)
    await eventually(lambda: told.what == [f"{MAX_OVERDUE_THREADS + 1} threads go on after their steps' time was up"])
    go_on.set()
    await asyncio.wait_for(asyncio.gather(first, second), 10)
    assert not told.overdue._threads
