"""Leaving the process: every task and thread ends, and nothing is recorded past the last record."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.errors import Stopped
from runtara.protocol.records import Cancelled, Checkpointed, Completed, StepFailure, Suspended
from runtara.sdk import Context, Retry, Workflow, current, step, sync, workflow
from runtara.sdk import gate as gate_module
from runtara.sdk.execution import Execution
from runtara.sdk.ports import Why
from tests.support.outlet import MemoryOutlet, execution

Code = Callable[[Context], Awaitable[Any]]


class Stage:
    """What a test's workflow tells: `ready` when it is to be stopped, and what it saw."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.go_on = asyncio.Event()
        self.seen: list[str] = []


async def forever(stage: Stage, name: str = "") -> None:
    try:
        stage.ready.set()
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        stage.seen.append(f"{name} cancelled")
        raise


async def stopped(code: Code | Workflow[..., Any], stage: Stage, why: Why) -> tuple[MemoryOutlet, Execution]:
    """Run `code` until it is ready, stop it, and wait until all of it has ended."""
    outlet = MemoryOutlet()
    attempt = execution(code if isinstance(code, Workflow) else workflow(name="code")(code), outlet)  # type: ignore[arg-type]
    before = asyncio.all_tasks()
    task = asyncio.create_task(attempt.run())
    await asyncio.wait_for(stage.ready.wait(), 5)
    attempt.stop(why)
    if why == "drain":
        attempt.stop(why)
    await asyncio.wait_for(task, 5)
    assert asyncio.all_tasks() <= before
    outlet.check_numbers()
    return outlet, attempt


LAST: dict[Why, type[Any] | None] = {"cancel": Cancelled, "drain": Suspended, "superseded": None}


@pytest.mark.parametrize("why", LAST)
async def test_a_stopped_instance_ends_with_the_record_that_says_so(why: Why) -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        try:
            await forever(stage, "main")
        finally:
            stage.seen.append(f"stopping: {ctx.stopping}")

    outlet, attempt = await stopped(code, stage, why)
    assert [type(record) for record in outlet.records] == ([LAST[why]] if LAST[why] else [])
    assert stage.seen == ["main cancelled", f"stopping: {why}"]
    assert attempt.frozen


async def test_drain_hands_over_and_pause_pauses() -> None:
    for why, reason in (("drain", "released"), ("pause", "pause")):
        stage = Stage()

        async def code(ctx: Context, stage: Stage = stage) -> None:
            stage.ready.set()
            while True:
                await asyncio.sleep(0)
                await ctx.step(f"s{len(stage.seen)}", lambda: None)
                stage.seen.append("")

        outlet, _ = await stopped(code, stage, why)  # type: ignore[arg-type]
        assert outlet.last.reason == reason


async def test_swallowing_the_cancellation_does_not_make_a_result() -> None:
    stage = Stage()

    async def code(ctx: Context) -> str:
        try:
            await forever(stage)
        except asyncio.CancelledError:
            try:
                await ctx.step("after", lambda: 1)
            except asyncio.CancelledError:
                stage.seen.append("refused")
        return "a result"

    outlet, _ = await stopped(code, stage, "cancel")
    assert [type(record) for record in outlet.records] == [Cancelled]
    assert stage.seen == [" cancelled", "refused"]


async def test_an_exception_while_unwinding_changes_nothing() -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        try:
            await forever(stage)
        finally:
            raise ValueError("from finally")

    outlet, _ = await stopped(code, stage, "drain")
    assert [type(record) for record in outlet.records] == [Suspended]


async def test_gather_with_return_exceptions_does_not_take_the_stop_for_a_value() -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        results = await asyncio.gather(forever(stage, "a"), forever(stage, "b"), return_exceptions=True)
        stage.seen.append(f"got {results}")
        await ctx.checkpoint("after", 1)

    outlet, _ = await stopped(code, stage, "cancel")
    assert sorted(stage.seen) == ["a cancelled", "b cancelled"]
    assert [type(record) for record in outlet.records] == [Cancelled]


async def test_a_task_group_ends_with_all_its_tasks_and_their_clean_up() -> None:
    stage = Stage()

    async def child(name: str) -> None:
        try:
            await forever(stage, name)
        finally:
            await asyncio.sleep(0.001)
            stage.seen.append(f"{name} cleaned")

    async def code(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child("a"))
            group.create_task(child("b"))

    outlet, _ = await stopped(code, stage, "drain")
    assert sorted(stage.seen) == ["a cancelled", "a cleaned", "b cancelled", "b cleaned"]
    assert [type(record) for record in outlet.records] == [Suspended]


async def test_tasks_that_nobody_waits_for_are_ended_too() -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        stage.tasks = [asyncio.create_task(forever(stage, "loose"))]  # type: ignore[attr-defined]
        await asyncio.shield(asyncio.create_task(forever(stage, "shielded")))

    await stopped(code, stage, "superseded")
    assert sorted(stage.seen) == ["loose cancelled", "shielded cancelled"]


async def test_a_finished_workflow_takes_its_loose_tasks_with_it() -> None:
    stage = Stage()

    @workflow
    async def code(ctx: Context) -> str:
        stage.tasks = [asyncio.create_task(forever(stage, "loose"))]  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return "done"

    outlet = MemoryOutlet()
    await execution(code, outlet).run()
    assert [type(record) for record in outlet.records] == [Completed]
    assert stage.seen == ["loose cancelled"]


async def test_clean_up_in_finally_may_take_its_time() -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        try:
            await forever(stage, "main")
        finally:
            await asyncio.wait_for(asyncio.sleep(0.01), 1)
            stage.seen.append("cleaned")

    await stopped(code, stage, "cancel")
    assert stage.seen == ["main cancelled", "cleaned"]


async def test_a_step_that_finishes_past_the_end_is_not_recorded() -> None:
    stage = Stage()

    async def stubborn() -> int:
        stage.ready.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stage.seen.append("ignored it")
        return 1

    async def code(ctx: Context) -> None:
        await ctx.step("s", stubborn)
        stage.seen.append("went on")

    outlet, _ = await stopped(code, stage, "cancel")
    assert stage.seen == ["ignored it"]
    assert [type(record) for record in outlet.records] == [Cancelled]


@pytest.mark.parametrize("why", ["pause", "drain"])
async def test_pause_and_drain_let_the_steps_in_flight_finish(why: Why) -> None:
    stage = Stage()

    async def slow(name: str) -> str:
        stage.ready.set()
        await stage.go_on.wait()
        return name

    @workflow
    async def code(ctx: Context) -> None:
        await asyncio.gather(ctx.step("a", slow, "a"), ctx.step("b", slow, "b"))
        stage.seen.append("between steps")
        await ctx.step("c", slow, "c")

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop(why)
    attempt.stop("pause")
    await asyncio.sleep(0.005)
    assert not attempt.frozen
    stage.go_on.set()
    await asyncio.wait_for(task, 5)
    assert outlet.keys == ["a", "b"]
    assert outlet.last.reason == {"pause": "pause", "drain": "released"}[why]
    assert stage.seen == ["between steps"]


async def test_what_a_checkpoint_guards_is_not_cut_in_half_by_a_drain() -> None:
    stage = Stage()

    @workflow
    async def code(ctx: Context) -> None:
        for n in range(3):
            await ctx.checkpoint(f"order-{n}", n)
            stage.ready.set()
            await stage.go_on.wait()
            stage.seen.append(f"worked on {n}")

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("drain")
    stage.go_on.set()
    await asyncio.wait_for(task, 5)
    assert (outlet.keys, stage.seen) == (["order-0"], ["worked on 0"])


async def test_an_operation_inside_a_step_in_flight_does_not_wait_for_a_pause_that_waits_for_it() -> None:
    stage = Stage()

    async def body() -> None:
        stage.ready.set()
        await stage.go_on.wait()
        await current().checkpoint("inside", 1)

    @workflow
    async def code(ctx: Context) -> None:
        await ctx.step("s", body)
        await ctx.step("next", body)

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("pause")
    stage.go_on.set()
    await asyncio.wait_for(task, 5)
    assert (outlet.keys, outlet.last.reason) == (["inside", "s"], "pause")


async def test_a_drain_does_not_wait_for_the_next_try_of_a_step() -> None:
    stage = Stage()

    @step(retry=Retry(initial=timedelta(hours=1), max_delay=timedelta(hours=1)))
    async def failing() -> None:
        stage.ready.set()
        raise OSError

    @workflow
    async def code(ctx: Context) -> None:
        await failing()

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("drain")
    await asyncio.wait_for(task, 5)
    assert [type(record) for record in outlet.records] == [StepFailure, Suspended]


async def test_code_that_comes_to_no_operation_is_stopped_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "POLITE_SECONDS", 0.01)
    stage = Stage()
    outlet = MemoryOutlet()

    @workflow
    async def code(ctx: Context) -> None:
        await forever(stage)

    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("pause")
    await asyncio.wait_for(task, 5)
    assert outlet.last.reason == "pause"


async def test_a_pause_that_is_taken_back_in_time_changes_nothing() -> None:
    stage = Stage()

    async def slow() -> int:
        stage.ready.set()
        await stage.go_on.wait()
        return 1

    @workflow
    async def code(ctx: Context) -> int:
        first, second = await asyncio.gather(ctx.step("a", slow), late(ctx))
        return first + second

    async def late(ctx: Context) -> int:
        await stage.ready.wait()
        await asyncio.sleep(0)
        stage.seen.append("at the gate")
        return await ctx.step("b", lambda: 2)

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("pause")
    await asyncio.sleep(0.005)
    assert (stage.seen, outlet.keys) == (["at the gate"], [])
    attempt.resume()
    stage.go_on.set()
    await asyncio.wait_for(task, 5)
    assert outlet.result == 3


async def test_cancel_wins_over_a_pause_that_waits() -> None:
    stage = Stage()

    async def code(ctx: Context) -> None:
        await ctx.step("s", forever, stage)

    outlet = MemoryOutlet()
    attempt = execution(workflow(name="code")(code), outlet)
    task = asyncio.create_task(attempt.run())
    await stage.ready.wait()
    attempt.stop("pause")
    attempt.stop("cancel", "enough")
    attempt.stop("superseded")
    await asyncio.wait_for(task, 5)
    assert [(type(record), record.reason) for record in outlet.records] == [(Cancelled, "enough")]  # type: ignore[attr-defined]


async def test_a_blocking_workflow_is_stopped_at_its_next_call() -> None:
    stage = Stage()
    loop = asyncio.get_running_loop()
    go_on = threading.Event()

    @workflow
    def code(ctx: sync.Context) -> str:
        ctx.step("a", lambda: 1)
        loop.call_soon_threadsafe(stage.ready.set)
        go_on.wait(5)
        try:
            ctx.step("b", lambda: 1)
        except Exception:
            stage.seen.append("taken for an error")
        except Stopped as exc:
            stage.seen.append(f"stopped: {exc}, {ctx.stopping}")
            raise
        return "a result"

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.create_task(attempt.run())
    await asyncio.wait_for(stage.ready.wait(), 5)
    attempt.stop("cancel")
    await asyncio.sleep(0.005)
    assert attempt.frozen
    assert not task.done()
    go_on.set()
    await asyncio.wait_for(task, 5)
    assert stage.seen == ["stopped: cancel, cancel"]
    assert [type(record) for record in outlet.records] == [Checkpointed, Cancelled]


async def test_a_thread_that_waits_in_a_call_is_stopped_there() -> None:
    stage = Stage()

    @workflow
    def code(ctx: sync.Context) -> None:
        try:
            ctx.step("s", forever, stage, "step")
        except Stopped:
            stage.seen.append("stopped")
            raise

    await stopped(code, stage, "cancel")
    assert stage.seen == ["step cancelled", "stopped"]


async def test_a_worker_that_gives_up_leaves_at_once() -> None:
    stage = Stage()

    @workflow
    async def code(ctx: Context) -> None:
        await forever(stage, "main")

    outlet = MemoryOutlet()
    task = asyncio.create_task(execution(code, outlet).run())
    await stage.ready.wait()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert stage.seen == ["main cancelled"]
    assert outlet.records == []


async def test_tasks_of_the_host_are_not_taken_for_the_instances_own() -> None:
    class Busy(MemoryOutlet):
        """An outlet that starts a task of its own when it is used, as a writer does."""

        tasks: list[asyncio.Task[None]] = []

        def send(self, record: Any) -> asyncio.Future[int]:
            self.tasks.append(asyncio.create_task(asyncio.sleep(0.02)))
            return super().send(record)

    @step
    async def one() -> int:
        return 1

    @workflow
    async def code(ctx: Context) -> int:
        return await one()

    outlet = Busy()
    await execution(code, outlet).run()
    await asyncio.wait(outlet.tasks)
    assert not any(task.cancelled() for task in outlet.tasks)
