"""What was done is undone, last things first: after a failure, on a cancel, and over crashes in the middle of it."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.messages import Memo
from runtara.protocol.records import Cancelled, Checkpointed, Compensating, Completed, Failed, StepFailure, Suspended
from runtara.sdk import Context, Retry, step, sync, undoing, workflow
from runtara.sdk.execution import Execution
from tests.support.outlet import MemoryOutlet, execution, run, run_until_killed

TRIP = ("flight", "hotel", "car")


class World:
    """What was done, and undone, outside."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.broken: set[str] = set()

    def book(self, what: str) -> str:
        self.log.append(f"+{what}")
        if what in self.broken:
            raise RuntimeError(f"no {what}")
        return what

    def undo(self, what: str) -> None:
        self.log.append(f"-{what}")
        if f"undo {what}" in self.broken:
            raise RuntimeError(f"{what} cannot be undone")

    @property
    def undone(self) -> list[str]:
        return [line for line in self.log if line.startswith("-")]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def trip(world: World) -> Any:
    @workflow(name="trip")
    async def code(ctx: Context) -> str:
        for what in TRIP:
            await ctx.compensate(world.undo, what, key=what)
            await ctx.step(what, world.book, what)
        await asyncio.Event().wait()
        return "booked"

    return code


def undo_keys(outlet: MemoryOutlet) -> list[str]:
    return [key for key in outlet.keys if key.startswith("~undo/")]


async def test_a_workflow_that_fails_is_undone_in_reverse_before_it_says_so(world: World, trip: Any) -> None:
    world.broken = {"car"}
    outlet = await run(trip)
    assert world.undone == ["-car", "-hotel", "-flight"]
    assert [type(record) for record in outlet.records[:2]] == [Compensating, Checkpointed]
    assert outlet.keys == ["flight", "hotel", "~failed", "~undo/car", "~undo/hotel", "~undo/flight"]
    assert isinstance(outlet.last, Failed)
    assert (outlet.last.error.code, "no car" in outlet.last.error.message) == ("StepFailed", True)


async def test_a_workflow_that_completes_undoes_nothing(world: World) -> None:
    @workflow
    async def code(ctx: Context) -> int:
        await ctx.compensate(world.undo, "a")
        return 1

    outlet = await run(code)
    assert (outlet.result, world.log) == (1, [])
    assert outlet.all(Compensating)[0].key.startswith("World.undo~")


async def test_a_compensation_is_in_the_journal_before_its_step_begins(world: World, trip: Any) -> None:
    outlet = MemoryOutlet(hold=True)
    task = asyncio.ensure_future(execution(trip, outlet).run())
    await outlet.until(1)
    await asyncio.sleep(0)
    assert (world.log, [type(record) for record in outlet.records]) == ([], [Compensating])
    task.cancel()
    await asyncio.wait([task])


async def test_a_crash_at_any_record_of_a_failing_trip_loses_and_repeats_no_undo(world: World, trip: Any) -> None:
    world.broken = {"car"}
    whole = await run(trip)
    for records in range(1, len(whole.records)):
        world.log.clear()
        crashed = await run_until_killed(trip, records)
        resumed = await run(trip, memos=list(crashed.memos()))
        assert sorted(set(world.undone)) == ["-car", "-flight", "-hotel"]
        recorded = [*undo_keys(crashed), *undo_keys(resumed)]
        assert recorded == ["~undo/car", "~undo/hotel", "~undo/flight"], records
        assert len(world.undone) <= 4, "only the one that was under way may have been called twice"
        assert resumed.last.error.message == whole.last.error.message


async def test_once_it_is_being_undone_it_cannot_succeed_any_more(world: World) -> None:
    luck: list[int] = []

    @workflow
    async def code(ctx: Context) -> str:
        await ctx.compensate(world.undo, "a", key="a")
        luck.append(1)
        if len(luck) == 1:
            raise OSError("not today")
        return "fine"

    crashed = await run_until_killed(code, 2)
    resumed = await run(code, memos=list(crashed.memos()))
    assert [type(record) for record in resumed.records] == [Checkpointed, Failed]
    assert resumed.last.error.message == "not today"


async def cancelled(code: Any, after: int, *, memos: list[Memo] | None = None) -> tuple[MemoryOutlet, Execution]:
    """An attempt that is cancelled once it has sent so many records."""
    outlet = MemoryOutlet()
    attempt = execution(code, outlet, memos=memos)
    task = asyncio.ensure_future(attempt.run())
    await outlet.until(after)
    attempt.stop("cancel", "enough")
    await asyncio.wait_for(task, 5)
    return outlet, attempt


async def test_a_cancel_hands_back_what_is_to_be_undone_and_the_next_attempt_undoes_it(world: World, trip: Any) -> None:
    first, attempt = await cancelled(trip, 6)
    assert (first.last.reason, attempt.stopping) == ("released", "cancel")
    assert isinstance(first.last, Suspended)
    second = await run(trip, memos=list(first.memos()), cancelling=True)
    assert world.log == ["+flight", "+hotel", "+car", "-car", "-hotel", "-flight"]
    assert [type(record) for record in second.records] == [Checkpointed] * 3 + [Cancelled]


async def test_without_anything_to_undo_a_cancel_ends_it_at_once(world: World) -> None:
    @workflow
    async def code(ctx: Context) -> None:
        await ctx.step("a", world.book, "a")
        await asyncio.Event().wait()

    outlet, _ = await cancelled(code, 1)
    assert outlet.last.reason == "enough"


async def test_being_cancelled_the_code_begins_nothing_new(world: World, trip: Any) -> None:
    crashed = await run_until_killed(trip, 3)  # the hotel may have been booked
    world.log.clear()
    outlet = await run(trip, memos=list(crashed.memos()), cancelling=True)
    assert world.log == ["-hotel", "-flight"]
    assert isinstance(outlet.last, Cancelled)


async def _wait(ctx: Context) -> None:
    await ctx.wait_signal("never")


async def _sleep(ctx: Context) -> None:
    await ctx.sleep(timedelta(days=1))


async def _call(ctx: Context) -> None:
    await ctx.call("other", {})


async def _save(ctx: Context) -> None:
    await ctx.checkpoint("c", 1)


async def _register(ctx: Context) -> None:
    await ctx.compensate(print, "another")


async def _go_on(ctx: Context) -> None:
    await ctx.continue_as()


@pytest.mark.parametrize("begin", [_wait, _sleep, _call, _save, _register, _go_on])
@pytest.mark.parametrize("later", [False, True])
async def test_being_cancelled_no_operation_begins_or_takes_a_number(world: World, begin: Any, later: bool) -> None:
    @workflow
    async def code(ctx: Context) -> None:
        await ctx.compensate(world.undo, "a", key="a")
        if later:
            await ctx.compensate(world.undo, "b", key="b")
        await begin(ctx)

    first = await run_until_killed(code, 1)
    outlet = await run(code, memos=list(first.memos()), cancelling=True)
    assert (undo_keys(outlet), world.undone) == (["~undo/a"], ["-a"])
    assert [type(record) for record in outlet.records] == [Checkpointed, Cancelled]


async def test_a_crash_at_any_record_of_a_cancelled_trip_loses_and_repeats_no_undo(world: World, trip: Any) -> None:
    first, _ = await cancelled(trip, 6)
    memos = list(first.memos())
    for records in range(4):
        world.log.clear()
        crashed = await run_until_killed(trip, records, memos=memos, cancelling=True)
        later = [*memos, *crashed.memos(len(memos))]
        resumed = await run(trip, memos=later, cancelling=True)
        assert [*undo_keys(crashed), *undo_keys(resumed)] == ["~undo/car", "~undo/hotel", "~undo/flight"]
        assert isinstance(resumed.last, Cancelled)


async def test_a_compensation_that_fails_is_told_and_the_others_run(world: World, trip: Any) -> None:
    world.broken = {"car", "undo hotel"}
    outlet = await run(trip)
    assert world.undone == ["-car", "-hotel", "-flight"]
    assert "no car" in outlet.last.error.message
    assert "not undone: 'hotel': RuntimeError: hotel cannot be undone" in outlet.last.error.message
    assert outlet.last.error.attributes["not_undone"] == [
        {"key": "hotel", "type": "RuntimeError", "message": "hotel cannot be undone"}
    ]


async def test_a_cancelled_instance_that_could_not_be_undone_has_failed(world: World, trip: Any) -> None:
    first, _ = await cancelled(trip, 6)
    world.broken = {"undo hotel"}
    crashed = await run_until_killed(trip, 2, memos=list(first.memos()), cancelling=True)
    later = [*first.memos(), *crashed.memos(6)]
    resumed = await run(trip, memos=later, cancelling=True)  # the failure of an earlier attempt counts
    assert (resumed.last.error.code, undo_keys(resumed)) == ("CompensationFailed", ["~undo/flight"])
    assert "cancelled, but not undone: 'hotel'" in resumed.last.error.message


async def test_a_compensation_is_tried_again_as_its_policy_says(world: World) -> None:
    @step(retry=Retry(max_attempts=3, initial=timedelta(milliseconds=1)))
    async def refund(order: str) -> None:
        world.undo(order)
        if len(world.log) < 3:
            raise OSError("busy")

    @workflow
    async def code(ctx: Context) -> None:
        await ctx.compensate(refund, "o-1")
        raise ValueError("no")

    outlet = await run(code)
    assert [record.n for record in outlet.all(StepFailure)] == [1, 2]
    assert outlet.last.error.attributes.get("not_undone") is None


@step(retry=Retry(max_attempts=2, initial=timedelta(days=1), max_delay=timedelta(days=1)))
async def refuse() -> None:
    raise OSError("closed on Sundays")


@workflow(linger=timedelta(0))
async def patient(ctx: Context) -> None:
    await ctx.compensate(refuse, key="r")
    await ctx.step("s", lambda: None)
    raise ValueError("no")


async def test_a_failed_workflow_leaves_memory_until_the_next_try_of_a_compensation() -> None:
    outlet = await run(patient)
    assert (outlet.last.reason, outlet.last.keys) == ("parked", ("~undo/r",))


async def test_a_cancelled_one_does_not_leave_but_may_be_handed_over() -> None:
    first, _ = await cancelled(workflow(name="patient")(waits_after_registering), 1)
    outlet = MemoryOutlet()
    code = workflow(name="patient", linger=timedelta(0))(waits_after_registering)
    attempt = execution(code, outlet, memos=list(first.memos()), cancelling=True)
    task = asyncio.ensure_future(attempt.run())
    await outlet.until(1)
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    attempt.stop("drain")
    await asyncio.wait_for(task, 5)
    assert (outlet.last.reason, outlet.last.keys) == ("released", ())


async def waits_after_registering(ctx: Context) -> None:
    await ctx.compensate(refuse, key="r")
    await ctx.wait_signal("never")


async def test_what_the_code_no_longer_registers_is_told_loudly(
    world: World, trip: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(undoing, "PATIENCE_SECONDS", 0.02)
    first, _ = await cancelled(trip, 6)

    @workflow(name="trip")
    async def shorter(ctx: Context) -> None:
        await ctx.compensate(world.undo, "car", key="car")
        await ctx.step("new", world.book, "new")

    outlet = await run(shorter, memos=list(first.memos()), cancelling=True)
    assert world.undone == ["-car"]
    assert "+new" not in world.log
    assert [entry["key"] for entry in outlet.last.error.attributes["not_undone"]] == ["hotel", "flight"]
    assert "the code no longer registers it" in outlet.last.error.message
    assert sum("not_undone" in record.message for record in caplog.records) == 2


async def test_branches_register_again_whichever_comes_first(world: World) -> None:
    @workflow
    async def code(ctx: Context) -> None:
        async def slow() -> None:
            await asyncio.sleep(0.02)  # plain code, run again
            await ctx.compensate(world.undo, "slow", key="slow")
            await ctx.step("slow", world.book, "slow")

        async def fast() -> None:
            await ctx.compensate(world.undo, "fast", key="fast")
            await ctx.wait_signal("never")

        await asyncio.gather(slow(), fast())

    first, _ = await cancelled(code, 4)
    outlet = await run(code, memos=list(first.memos()), cancelling=True)
    assert world.undone == ["-slow", "-fast"]
    assert isinstance(outlet.last, Cancelled)


async def test_code_that_swallows_its_cancellation_is_undone_all_the_same(world: World) -> None:
    @workflow
    async def code(ctx: Context) -> str:
        await ctx.compensate(world.undo, "a", key="a")
        for _ in range(3):
            try:
                await ctx.step("s", asyncio.Event().wait)
            except asyncio.CancelledError:
                world.log.append("swallowed")
        return "a result"

    first, _ = await cancelled(code, 1)
    world.log.clear()
    outlet = await run(code, memos=list(first.memos()), cancelling=True)
    assert world.log[-1] == "-a"
    assert [type(record) for record in outlet.records] == [Checkpointed, Cancelled]


async def test_def_workflows_undo_too(world: World) -> None:
    @workflow
    def code(ctx: sync.Context) -> None:
        ctx.compensate(world.undo, "a")
        ctx.compensate(world.undo, "b", key="b")
        ctx.step("never", threading.Event().wait, 0.001)
        raise ValueError("no")

    outlet = await run(code)
    assert world.undone == ["-b", "-a"]
    assert outlet.last.error.code == "ValueError"


async def test_a_blocking_workflow_that_is_cancelled_begins_nothing_new(world: World) -> None:
    stopped: list[str] = []

    @workflow
    def code(ctx: sync.Context) -> None:
        ctx.compensate(world.undo, "a", key="a")
        try:
            ctx.wait_signal("never")
        except BaseException as exc:
            stopped.append(f"{type(exc).__name__} {ctx.stopping}")
            raise

    first, _ = await cancelled(code, 2)
    outlet = await run(code, memos=list(first.memos()), cancelling=True)
    assert (world.undone, stopped) == (["-a"], ["Stopped cancel", "Stopped cancel"])
    assert isinstance(outlet.last, Cancelled)


async def test_a_workflow_whose_time_is_up_is_undone(world: World) -> None:
    @workflow(timeout=timedelta(milliseconds=20))
    async def code(ctx: Context) -> None:
        await ctx.compensate(world.undo, "a", key="a")
        await asyncio.Event().wait()

    outlet = await run(code)
    assert (world.undone, outlet.last.error.code) == (["-a"], "WorkflowTimeout")


async def test_a_compensation_inside_a_step_is_refused(world: World) -> None:
    @workflow
    async def code(ctx: Context) -> None:
        await ctx.step("s", lambda: ctx.compensate(world.undo, "a"))

    outlet = await run(code)
    assert "called inside a step" in outlet.last.error.message
    assert outlet.all(Compensating) == []


async def test_the_same_key_twice_is_refused_but_a_step_may_be_called_like_its_undo(world: World, trip: Any) -> None:
    @workflow
    async def code(ctx: Context) -> None:
        await ctx.compensate(world.undo, "a", key="a")
        await ctx.compensate(world.undo, "b", key="a")

    outlet = await run(code)
    assert outlet.last.error.code == "DuplicateKey"
    assert world.undone == ["-a"]


async def test_a_new_claim_stops_the_undoing_at_once(world: World) -> None:
    gone = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    @workflow
    async def code(ctx: Context) -> None:
        await ctx.compensate(slow, key="a")
        raise ValueError("no")

    outlet = MemoryOutlet()
    attempt = execution(code, outlet)
    task = asyncio.ensure_future(attempt.run())
    await outlet.until(2)
    await asyncio.sleep(0.005)
    attempt.stop("superseded")
    await asyncio.wait_for(task, 5)
    assert gone.is_set()
    assert not any(isinstance(record, Failed | Completed) for record in outlet.records)
