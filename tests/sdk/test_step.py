"""Where a step is called decides what it does."""

import asyncio
import concurrent.futures
import inspect
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.errors import NoContext, StepFailed, WrongColour
from runtara.protocol.records import Checkpointed, Failed, StepFailure
from runtara.sdk import Context, Retry, RetryAfter, current, step, sync, workflow
from runtara.sdk.step import spec_of
from tests.support.outlet import MemoryOutlet, execution, run, run_until_killed


class PaymentDeclined(Exception): ...


class Coded(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def from_record(cls, attributes: dict[str, Any]) -> "Coded":
        return cls("again", attributes["code"])


@step
async def double(n: int) -> int:
    """Twice as much."""
    return n * 2


@step
def triple(n: int) -> int:
    return n * 3


@step
async def both(n: int) -> int:
    return await double(n) + await asyncio.to_thread(triple, n)


class Gateway:
    def __init__(self, fee: int) -> None:
        self.fee = fee

    @step(key="{order}")
    async def charge(self, order: str, amount: int) -> int:
        return amount + self.fee

    @step
    async def refund(self, amount: int) -> int:
        return amount


async def test_outside_a_workflow_a_step_is_the_plain_function() -> None:
    assert (await double(2), triple(2), await both(1)) == (4, 6, 5)


def test_a_step_keeps_its_name_text_and_kind() -> None:
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert asyncio.iscoroutinefunction(double)
    assert not inspect.iscoroutinefunction(triple)


async def test_a_step_inside_a_step_is_a_plain_call() -> None:
    @workflow
    async def outer(ctx: Context) -> int:
        return await both(1)

    outlet = await run(outer)
    assert [key.partition("~")[0] for key in outlet.keys] == ["both"]
    assert outlet.result == 5


async def test_methods_are_steps_too() -> None:
    gateway = Gateway(1)

    @workflow
    async def pay(ctx: Context) -> list[int]:
        return [await gateway.charge("o/1", 5), await ctx.step("again", gateway.charge, "o-2", amount=6)]

    outlet = await run(pay)
    assert outlet.keys == ["Gateway.charge/o~11", "again"]
    assert outlet.result == [6, 7]


async def test_a_method_of_an_object_without_a_text_needs_a_key() -> None:
    @workflow
    async def pay(ctx: Context) -> int:
        return await Gateway(1).refund(3)

    outlet = await run(pay)
    assert outlet.last.error.code == "KeyNeeded"
    assert "'self' of Gateway.refund" in outlet.last.error.message


async def test_a_direct_call_across_colours_is_refused() -> None:
    @workflow
    async def wrong(ctx: Context) -> int:
        with pytest.raises(WrongColour, match=r"triple is blocking.*ctx\.step"):
            triple(1)
        return await ctx.step("t", triple, 1)

    @workflow
    def wrong_too(ctx: sync.Context) -> int:
        with pytest.raises(WrongColour, match="double is async"):
            _ = double(1)
        return ctx.step("d", double, 1)

    assert (await run(wrong)).result == 3
    assert (await run(wrong_too)).result == 2


async def test_a_thread_that_lost_its_context_is_refused_in_a_worker() -> None:
    @workflow
    async def lost(ctx: Context) -> int:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with pytest.raises(NoContext, match="triple"):
                await asyncio.get_running_loop().run_in_executor(pool, triple, 1)
            with pytest.raises(NoContext):
                await asyncio.get_running_loop().run_in_executor(pool, current)
        return await ctx.run_in_thread(triple, 1)

    outlet = await run(lost)
    assert outlet.result == 3
    assert len(outlet.all(Checkpointed)) == 1


async def test_the_context_is_in_reach_of_helpers_and_steps() -> None:
    @step
    async def told() -> str:
        current().progress(1, 2)
        return current().instance

    @workflow
    async def helped(ctx: Context) -> str:
        assert current() is ctx
        return await told()

    outlet = await run(helped)
    assert outlet.result == "i-1"
    assert len(outlet.best_effort) == 1


async def test_a_thread_that_kept_its_context_may_call_steps_of_its_colour() -> None:
    @workflow
    async def helped(ctx: Context) -> int:
        return await asyncio.to_thread(triple, 1) + await ctx.run_in_thread(triple, 2)

    outlet = await run(helped)
    assert (outlet.result, len(outlet.keys)) == (9, 2)


async def test_a_step_whose_annotation_does_not_resolve_is_refused_before_it_runs() -> None:
    ran: list[int] = []

    @step
    async def lost() -> "Missing":  # type: ignore[name-defined]  # noqa: F821
        ran.append(1)

    @workflow
    async def losing(ctx: Context) -> None:
        await lost()

    outlet = await run(losing)
    assert "'Missing' of 'return' in lost" in outlet.last.error.message
    assert ran == []


async def test_options_can_be_changed_for_a_call() -> None:
    @workflow
    async def careful(ctx: Context) -> None:
        await double(1)
        await step(durability="log")(double)(2)
        await ctx.step("third", step(durability="log")(triple), 3)

    outlet = await run(careful)
    assert [record.key for record in outlet.all(Checkpointed) if record in outlet.committed] == outlet.keys[1:]
    assert spec_of(double).durability is None


@pytest.mark.parametrize(
    ("raises", "reason"),
    [
        ((int,), "exception classes"),
        ([ValueError], "tuple"),
        ((type("Two", (Exception,), {"__init__": lambda self, a, b: None}),), "Two"),
    ],
)
def test_exceptions_that_cannot_be_made_again_are_refused_at_decoration(raises: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        step(raises=raises)(double)


async def test_listed_exceptions_come_through_as_themselves_now_and_after_a_resume() -> None:
    @step(raises=(PaymentDeclined, Coded))
    async def pay(how: str) -> None:
        raise {"declined": PaymentDeclined("no money"), "coded": Coded("first", 7), "other": OSError("disk")}[how]

    @workflow
    async def paying(ctx: Context) -> list[str]:
        seen = []
        for how in ("declined", "coded", "other"):
            try:
                await pay(how)
            except (PaymentDeclined, Coded, StepFailed) as exc:
                seen.append(f"{type(exc).__name__}: {exc}")
        return seen

    first = await run(paying)
    again = await run(paying, memos=list(first.memos()))
    assert first.result == again.result
    assert len(again.records) == 1
    seen = first.result
    assert seen[:2] == ["PaymentDeclined: no money", "Coded: again"]
    assert seen[2].startswith("StepFailed: step 'pay~")
    assert seen[2].endswith("failed after 1 attempt(s): OSError: disk")


async def test_a_failed_step_is_tried_again_and_every_try_is_recorded() -> None:
    tries: list[int] = []

    @step(retry=Retry(max_attempts=3, initial=timedelta(milliseconds=1)))
    def flaky(n: int) -> int:
        tries.append(n)
        if len(tries) < 3:
            raise KeyError("not yet")
        return n

    @workflow
    def trying(ctx: sync.Context) -> int:
        return flaky(5)

    outlet = await run(trying)
    assert [type(record).__name__ for record in outlet.records] == [
        "StepFailure",
        "StepFailure",
        "Checkpointed",
        "Completed",
    ]
    first: Any = outlet.records[0]
    assert (first.n, first.for_us > 0, first.error.code) == (1, True, "KeyError")
    assert "flaky" in first.error.attributes["traceback"]


async def test_the_next_try_after_a_crash_waits_until_the_journals_clock_says_that_it_is_due() -> None:
    calls: list[float] = []

    @step(retry=Retry(max_attempts=2, initial=timedelta(seconds=0.3), jitter=0))
    async def flaky() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise OSError("disk")

    @workflow
    async def trying(ctx: Context) -> None:
        await flaky()

    crashed = await run_until_killed(trying, 1)  # its clock is not the journal's: see `journal_us`
    await run(trying, memos=list(crashed.memos()))
    assert 0.3 <= calls[1] - calls[0] < 5


async def test_tries_recorded_before_a_crash_count() -> None:
    calls: list[int] = []

    @step(retry=Retry(max_attempts=2, initial=timedelta(milliseconds=1)))
    async def flaky() -> None:
        calls.append(1)
        raise OSError("disk")

    @workflow
    async def trying(ctx: Context) -> str:
        with pytest.raises(StepFailed) as caught:
            await flaky()
        return str(caught.value)

    first = await run(trying)
    assert len(calls) == 2
    crashed = list(first.memos())[:1]
    resumed = await run(trying, memos=crashed)
    assert len(calls) == 3
    assert resumed.result == first.result
    assert resumed.result.count("after 2 attempt(s)") == 1


async def test_a_step_that_takes_too_long_fails_with_the_time_it_had() -> None:
    @step(timeout=timedelta(milliseconds=5))
    async def slow() -> None:
        await asyncio.Event().wait()

    @workflow
    async def waiting(ctx: Context) -> None:
        await slow()

    first = await run(waiting)
    again = await run(waiting, memos=list(first.memos()))
    assert [record.error.code for record in first.all(Failed)] == ["StepTimeout"]
    assert again.last.error.message == first.last.error.message
    assert "within 0.005 s" in again.last.error.message


def hold(seconds: float, gate: threading.Event) -> str:
    """A plain function that nobody can interrupt."""
    gate.wait(seconds)
    return "late"


async def test_a_plain_function_that_takes_too_long_is_left_behind_in_both_colours() -> None:
    gate, went_on = threading.Event(), []
    limited = step(timeout=timedelta(milliseconds=20))(hold)

    @workflow
    async def mixed(ctx: Context) -> None:
        try:
            await ctx.step("s", limited, 10, gate)
        finally:
            went_on.append(gate.is_set())
            gate.set()

    @workflow
    def blocking(ctx: sync.Context) -> None:
        try:
            ctx.step("s", limited, 10, gate)
        finally:
            went_on.append(gate.is_set())
            gate.set()

    for code in (mixed, blocking):
        gate.clear()
        outlet = await run(code)
        assert [record.error.code for record in outlet.all(Failed)] == ["StepTimeout"]
        assert outlet.keys == []
    assert went_on == [False, False]


async def test_a_plain_function_that_took_too_long_is_tried_again_in_a_thread_of_its_own() -> None:
    gate, calls = threading.Event(), []

    @step(key="s", timeout=timedelta(milliseconds=200), retry=Retry(initial=timedelta(milliseconds=1)))
    def slow_at_first() -> int:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            gate.wait(10)
        gate.set()
        return len(calls)

    @workflow
    def blocking(ctx: sync.Context) -> int:
        return slow_at_first()

    outlet = await run(blocking)
    assert (outlet.result, len(set(calls))) == (2, 2)
    assert [record.error.code for record in outlet.all(StepFailure)] == ["StepTimeout"]


async def test_a_wait_that_an_error_asks_for_costs_no_try_and_is_remembered_over_a_crash() -> None:
    calls: list[int] = []

    @step(key="s", retry=Retry(max_attempts=2, initial=timedelta(milliseconds=1)))
    async def busy() -> int:
        calls.append(1)
        if len(calls) < 6:
            raise RetryAfter(timedelta(milliseconds=1), "429")
        raise OSError("disk")

    @workflow
    async def code(ctx: Context) -> str:
        with pytest.raises(StepFailed) as caught:
            await busy()
        assert "tries_asked_for" not in caught.value.attributes["details"]  # type: ignore[operator]
        return str(caught.value)

    crashed = await run_until_killed(code, 3)
    assert len(calls) == 4, "the last of these died with its process before it was recorded"
    resumed = await run(code, memos=list(crashed.memos()))
    assert len(calls) == 7
    assert [record.n for record in resumed.all(StepFailure)] == [4, 5, 6]
    assert resumed.result.endswith("failed after 6 attempt(s): OSError: disk")


async def test_a_step_given_up_between_two_tries_goes_on_with_its_count_when_it_is_called_again() -> None:
    tried: list[int] = []

    @step(key="s", retry=Retry(max_attempts=2, initial=timedelta(milliseconds=50), jitter=0))
    async def failing() -> None:
        tried.append(1)
        raise OSError("disk")

    @workflow
    async def code(ctx: Context) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(failing(), 0.01)
        await failing()

    outlet = await run(code)
    assert len(tried) == 2
    assert [record.n for record in outlet.all(StepFailure)] == [1, 2]


async def test_an_exit_in_a_step_fails_the_step_and_not_the_worker() -> None:
    @step
    async def leaving() -> None:
        raise SystemExit(3)

    @workflow
    async def left(ctx: Context) -> None:
        await leaving()

    assert (await run(left)).last.error.attributes["type"] == "SystemExit"


async def test_a_step_given_up_while_its_record_was_on_its_way_answers_the_next_call() -> None:
    outlet = MemoryOutlet(hold=True)

    @workflow
    async def impatient(ctx: Context) -> int:
        try:
            async with asyncio.timeout(0.001):
                await ctx.step("d", double, 2)
        except TimeoutError:
            outlet.release()
        return await ctx.step("d", double, 3)

    await execution(impatient, outlet).run()
    assert outlet.keys == ["d"]
    assert outlet.result == 4


async def test_a_step_given_up_before_it_had_a_result_can_be_called_again() -> None:
    @step
    async def slow(n: int) -> int:
        await asyncio.sleep(0 if asyncio.current_task() is main else 60)
        return n

    main: Any = None

    @workflow
    async def impatient(ctx: Context) -> int:
        nonlocal main
        task = asyncio.ensure_future(slow(1))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        main = asyncio.current_task()
        return await slow(1)

    outlet = await run(impatient)
    assert len(outlet.keys) == 1
    assert "#" not in outlet.keys[0]


async def test_def_code_stays_in_its_own_thread_and_async_workflows_are_not_held_up() -> None:
    @step
    def where(n: int) -> str:
        return threading.current_thread().name

    @workflow
    def blocking(ctx: sync.Context) -> bool:
        return where(1) == ctx.step("w", where, 1) == threading.current_thread().name

    gate = threading.Event()

    def opened(n: int) -> bool:
        gate.set()
        return gate.is_set()

    @workflow
    async def mixed(ctx: Context) -> list[bool]:
        waiting = ctx.step("w", gate.wait, 5.0)
        return list(await asyncio.gather(waiting, ctx.step("s", opened, 1)))

    assert (await run(blocking)).result is True
    assert (await run(mixed)).result == [True, True]
