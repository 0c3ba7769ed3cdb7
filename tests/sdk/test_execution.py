"""One attempt, from its claim to its last record."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from runtara.protocol.blobs import Carried
from runtara.protocol.errors import DuplicateKey, StateNotRepresentable, StateTooLarge
from runtara.protocol.limits import MAX_STATE_BYTES
from runtara.protocol.messages import Claimed, Memo
from runtara.protocol.records import Cancelled, Checkpointed, Completed, Continued, Failed, Options, Parked, Suspended
from runtara.sdk import Context, Saved, step, sync, workflow
from tests.support.outlet import MemoryOutlet, claimed, execution, run, run_until_killed

done: list[int] = []


@step
async def work(n: int) -> int:
    done.append(n)
    return n * 10


@workflow
async def batch(ctx: Context, count: int) -> list[int]:
    return [await work(n) for n in range(count)]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    done.clear()


async def test_steps_and_result_are_recorded_in_order_under_the_claim() -> None:
    outlet = await run(batch, count=3)
    assert [type(record) for record in outlet.records] == [Checkpointed] * 3 + [Completed]
    assert outlet.result == [0, 10, 20]
    first: Any = outlet.records[0]
    assert (first.instance, first.attempt, first.nonce, first.seq) == ("i-1", 2, "n", 1)
    assert bytes(first.data).startswith(b'{"kind":"step","value":0,"args":"')


async def test_a_killed_attempt_resumes_after_its_last_recorded_step() -> None:
    killed = await run_until_killed(batch, 2, count=5)
    assert done == [0, 1, 2]
    done.clear()
    resumed = await run(batch, memos=list(killed.memos()), count=5)
    assert done == [2, 3, 4]
    assert resumed.result == [0, 10, 20, 30, 40]


async def test_a_step_gives_what_was_recorded_in_the_first_run_too() -> None:
    @step
    async def pair() -> tuple[int, int]:
        return (1, 2)

    @step
    async def untyped() -> Any:
        return {1: (2, 3)}

    @workflow
    async def telling(ctx: Context) -> list[str]:
        return [repr(await pair()), repr(await untyped())]

    first = await run(telling)
    assert first.result == ["(1, 2)", "{'1': [2, 3]}"]
    assert (await run(telling, memos=list(first.memos()))).result == first.result


async def test_a_checkpoint_waits_for_the_commit_and_guards_what_comes_after() -> None:
    guarded: list[int] = []

    @workflow
    async def orders(ctx: Context) -> list[Any]:
        seen: list[Any] = []
        for n in range(3):
            saved: Saved[dict[str, int]] = await ctx.checkpoint(f"order-{n}", {"n": n})
            if not saved.existing:
                guarded.append(n)
            seen.append(saved.state)
        return seen

    killed = await run_until_killed(orders, 2)
    assert guarded == [0, 1]
    assert killed.committed == killed.records
    assert bytes(killed.all(Checkpointed)[0].data) == b'{"kind":"checkpoint","value":{"n":0}}'
    resumed = await run(orders, memos=list(killed.memos()))
    assert guarded == [0, 1, 2]
    assert resumed.result == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_durability_is_settled_by_call_then_step_then_workflow_then_worker() -> None:
    @step(durability="journal")
    async def quick() -> None: ...

    @step
    async def plain() -> None: ...

    async def code(ctx: Context) -> None:
        await quick()
        await plain()
        await ctx.checkpoint("a", 1)
        await ctx.checkpoint("b", 1, durability="journal")

    async def committed(options: Options | None = None, **settings: Any) -> list[str]:
        outlet = MemoryOutlet()
        await execution(workflow(name="w", **settings)(code), outlet, options=options).run()
        return [record.key.partition(".")[0].partition("~")[0] for record in outlet.committed]  # type: ignore[attr-defined]

    names = [name.rpartition(">.")[2] for name in ("quick", "plain")]
    assert names == ["quick", "plain"]
    assert await committed() == ["a"]
    assert await committed(durability="log") == ["plain", "a"]
    assert await committed(durability="journal") == []
    assert await committed(Options(durability="log")) == ["plain", "a"]


async def test_the_first_attempt_may_start_before_its_claim_is_answered_but_a_checkpoint_waits() -> None:
    @workflow
    async def eager(ctx: Context) -> int:
        await work(1)
        await ctx.checkpoint("c", 1)
        return await work(2)

    outlet = MemoryOutlet()
    attempt = execution(eager, outlet, attempt=1, confirmed=False)
    task = asyncio.create_task(attempt.run())
    await outlet.until(2)
    await asyncio.sleep(0.01)
    assert [record.key.partition("~")[0] for record in outlet.all(Checkpointed)] == ["work", "c"]
    attempt.confirm(claimed(eager, Raw(b"{}"), [], attempt=1))
    await task
    assert outlet.result == 20


async def test_a_claim_that_says_cancelled_ends_before_any_code_runs() -> None:
    for flags, kind in (({"cancel": True}, Cancelled), ({"pause": True}, Suspended)):
        outlet = MemoryOutlet()
        text = Raw(b'{"count":2}')
        attempt = execution(batch, outlet, {"count": 2}, attempt=1, confirmed=False)
        attempt.confirm(claimed(batch, text, [], **flags))
        await attempt.run()
        assert [type(record) for record in outlet.records] == [kind]
    assert done == []


async def test_an_input_that_does_not_fit_fails_the_instance_before_any_code_runs() -> None:
    outlet = MemoryOutlet()
    attempt = execution(batch, outlet, {"count": 2})
    attempt._input = Carried(Raw(b'{"count": "x"}'))
    await attempt.run()
    assert outlet.last.error.code == "InvalidInput"
    assert "Expected `int`, got `str` - at `$.count`" in outlet.last.error.message


async def test_what_user_code_raises_fails_the_instance_with_type_text_and_place() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("a\x00b \ud800")
            self.order = {"id": 1, "when": timedelta(days=1)}
            self.engine = object()

        def __repr__(self) -> str:
            raise RuntimeError

    @workflow
    async def failing(ctx: Context) -> None:
        raise Odd

    error = (await run(failing)).last.error
    assert (error.code, error.message) == ("Odd", "a�b ?")
    assert error.attributes["order"] == {"id": 1, "when": "P1D"}
    assert "in failing" in error.attributes["traceback"]
    assert "runtara/sdk" not in error.attributes["traceback"]


@pytest.mark.parametrize(
    "bad", [BaseExceptionGroup("g", [SystemExit(1)]), SystemExit(2), asyncio.CancelledError(), StopIteration()]
)
async def test_whatever_user_code_raises_the_worker_lives_on(bad: BaseException) -> None:
    @workflow
    async def failing(ctx: Context) -> None:
        raise bad

    assert isinstance((await run(failing)).last, Failed)


async def test_a_value_that_cannot_be_recorded_is_told_where_it_was_made() -> None:
    @workflow
    async def bad(ctx: Context) -> str:
        with pytest.raises(StateNotRepresentable, match=r"\$\.a"):
            await ctx.step("k", lambda: {"a": float("nan")})
        with pytest.raises(StateTooLarge, match="'big'"):
            await ctx.checkpoint("big", "x" * MAX_STATE_BYTES)
        await ctx.checkpoint("used", 1)
        with pytest.raises(DuplicateKey, match="'used'"):
            await ctx.checkpoint("used", 2)
        return await ctx.step("k", lambda: "good")

    outlet = await run(bad)
    assert outlet.keys == ["used", "k"]
    assert outlet.result == "good"


async def test_a_result_that_cannot_be_recorded_fails_the_instance() -> None:
    @workflow
    async def bad(ctx: Context) -> object:
        return object()

    assert (await run(bad)).last.error.code == "StateNotRepresentable"


async def test_the_last_record_is_waited_for() -> None:
    outlet = MemoryOutlet(hold=True)
    task = asyncio.create_task(execution(batch, outlet, {"count": 0}).run())
    await outlet.until(1)
    await asyncio.sleep(0.01)
    assert not task.done()
    outlet.release()
    await task


async def test_recorded_keys_that_nobody_asked_for_are_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    first = await run(batch, count=3)
    with caplog.at_level(logging.WARNING, "runtara.sdk"):
        await run(batch, memos=list(first.memos()), count=2)
    assert "recorded_keys_not_asked_for" in caplog.text
    assert "count=1" in caplog.text


async def test_continue_as_ends_the_run_with_the_next_input() -> None:
    @workflow
    async def rounds(ctx: Context, n: int) -> None:
        await work(n)
        try:
            await ctx.continue_as(n=n + 1)
        finally:
            await work(99)

    outlet = await run(rounds, n=1)
    assert [type(record) for record in outlet.records] == [Checkpointed, Continued]
    assert bytes(outlet.last.input) == b'{"n":2}'


async def test_a_workflow_that_takes_too_long_fails_counted_from_its_first_attempt() -> None:
    @workflow(timeout=timedelta(seconds=60))
    async def slow(ctx: Context) -> None:
        await work(1)
        await asyncio.Event().wait()

    first = await run_until_killed(slow, 2)
    assert [(record.key, record.kind, record.for_us) for record in first.all(Parked)] == [
        ("~timeout", "sleep", 60_000_000)
    ]
    over = Memo(key="~timeout", version=9, type="WaitResolved", data=Raw(b'{"outcome":"slept"}'))
    outlet = await run(slow, memos=[*first.memos(), over])
    assert (outlet.last.error.code, outlet.last.error.attributes["seconds"]) == ("WorkflowTimeout", 60)


async def test_a_refused_record_ends_the_attempt_without_another() -> None:
    class Refusing(MemoryOutlet):
        def send_committed(self, record: Any) -> asyncio.Future[None]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(RuntimeError("stale claim"))
            return future

    after: list[int] = []

    @workflow
    async def guarded(ctx: Context) -> None:
        try:
            await ctx.checkpoint("c", 1)
            after.append(1)
        finally:
            await work(1)

    outlet = Refusing()
    await execution(guarded, outlet).run()
    assert (outlet.records, after, done) == ([], [], [])


async def test_a_def_workflow_does_the_same_in_a_thread() -> None:
    @step
    def halve(n: int) -> float:
        done.append(n)
        return n / 2

    @workflow
    def blocking(ctx: sync.Context, count: int) -> list[float]:
        ctx.progress(0, count)
        with ctx.scope("half/all"):
            assert ctx.checkpoint("begin", count).state == count
            return [halve(n) for n in range(count)]

    killed = await run_until_killed(blocking, 3, count=4)
    assert done == [0, 1, 2]
    done.clear()
    resumed = await run(blocking, memos=list(killed.memos()), count=4)
    assert done == [2, 3]
    assert resumed.result == [0, 0.5, 1, 1.5]
    assert all(key.startswith("half~1all/") for key in killed.keys)


def test_the_answer_to_a_claim_is_all_an_execution_needs() -> None:
    """A worker builds an execution from a run request and this; nothing else of the message is used."""
    assert {"memos", "cancel", "pause", "cancelling"} <= set(Claimed.__struct_fields__)
