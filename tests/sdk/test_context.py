"""What a workflow can ask its context beside steps and checkpoints."""

import asyncio
from typing import Any

import orjson
import pytest

from runtara.protocol.errors import KeyMismatch, NoContext
from runtara.protocol.records import Custom, Log, Progress
from runtara.sdk import Context, current, reports, workflow
from tests.support.outlet import MemoryOutlet, execution, run


async def derived(ctx: Context) -> list[str]:
    values = [str(ctx.uuid("a")), str(ctx.random("a").random()), ctx.idempotency_key("a")]
    with ctx.scope("s"):
        values += [str(ctx.uuid("a")), ctx.idempotency_key("a")]
    return values


async def test_derived_values_are_the_same_in_every_attempt_and_need_no_record() -> None:
    flow = workflow(derived)
    first, second = await run(flow), await run(flow)
    assert first.result == second.result
    assert len(set(first.result)) == 5
    assert len(first.records) == 1


async def test_derived_values_are_others_in_each_run_that_continue_as_began() -> None:
    async def values(**how: Any) -> list[str]:
        outlet = MemoryOutlet()
        await execution(workflow(derived), outlet, **how).run()
        found: list[str] = outlet.result
        return found

    optimistic = await values(attempt=1, confirmed=False)
    first, second, again, third = [await values(floor=floor) for floor in (0, 7, 7, 19)]
    assert (optimistic, again) == (first, second)
    assert len({*first, *second, *third}) == 15


async def test_the_time_is_recorded() -> None:
    @workflow
    async def timed(ctx: Context) -> str:
        return (await ctx.now("t")).isoformat()

    first = await run(timed)
    assert first.result.endswith("+00:00")
    assert (await run(timed, memos=list(first.memos()))).result == first.result


async def test_an_event_is_emitted_once_whatever_is_resumed() -> None:
    @workflow
    async def emitting(ctx: Context) -> None:
        for n in (1, 1, 2):
            await ctx.emit("paid", {"n": n})
        await ctx.emit("named", key="k")

    first = await run(emitting)
    events = first.all(Custom)
    assert [(event.name, orjson.loads(bytes(event.data))) for event in events] == [
        ("paid", {"n": 1}), ("paid", {"n": 1}), ("paid", {"n": 2}), ("named", None),
    ]  # fmt: skip
    assert len({event.key for event in events}) == 4
    assert (await run(emitting, memos=list(first.memos()))).all(Custom) == []


async def test_a_key_recorded_by_another_kind_of_operation_is_refused() -> None:
    @workflow
    async def before(ctx: Context) -> None:
        await ctx.step("a", lambda: 1)

    @workflow
    async def after(ctx: Context) -> None:
        with pytest.raises(KeyMismatch, match="'a'"):
            await ctx.checkpoint("a", 1)

    memos = list((await run(before)).memos())
    assert (await run(after, memos=memos)).result is None


async def test_progress_is_sent_at_most_once_in_a_while_and_the_latest_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reports, "PROGRESS_SECONDS", 0.02)

    @workflow
    async def counting(ctx: Context) -> None:
        for n in range(100):
            ctx.progress(n, 100)
        await asyncio.sleep(0.03)

    sent: list[Any] = (await run(counting)).best_effort
    assert all(isinstance(record, Progress) for record in sent)
    assert [(record.done, record.total) for record in sent] == [(0, 100), (99, 100)]


async def test_log_lines_are_silent_while_a_resumed_run_is_answered() -> None:
    @workflow
    async def logging(ctx: Context) -> None:
        ctx.log("first", order=1, odd=object())
        await ctx.step("a", lambda: 1)
        ctx.log("second", level="warning")
        await ctx.step("b", lambda: 1)
        ctx.log("third")

    first = await run(logging)
    lines = [record for record in first.best_effort if isinstance(record, Log)]
    assert [(line.level, line.message) for line in lines] == [
        ("info", "first"),
        ("warning", "second"),
        ("info", "third"),
    ]
    assert orjson.loads(bytes(lines[0].data))["order"] == "1"
    resumed = await run(logging, memos=list(first.memos())[:1])
    assert [record.message for record in resumed.best_effort if isinstance(record, Log)] == ["third"]


async def test_a_context_knows_its_instance() -> None:
    @workflow
    async def telling(ctx: Context) -> list[Any]:
        return [ctx.tenant, ctx.instance, ctx.attempt, dict(ctx.labels), ctx.stopping]

    assert (await run(telling)).result == ["acme", "i-1", 2, {"team": "a"}, None]


def test_there_is_no_context_outside() -> None:
    with pytest.raises(NoContext):
        current()


async def test_scopes_of_sibling_tasks_do_not_mix() -> None:
    @workflow
    async def scoped(ctx: Context) -> None:
        async def branch(name: str) -> None:
            with ctx.scope(name):
                await asyncio.sleep(0)
                with ctx.scope("in"):
                    await ctx.checkpoint("x", 1)

        await asyncio.gather(branch("a"), branch("b/c"))
        await ctx.checkpoint("x", 1)

    assert (await run(scoped)).keys == ["a/in/x", "b~1c/in/x", "x"]


async def test_progress_and_logs_from_threads_arrive() -> None:
    @workflow
    async def threaded(ctx: Context) -> None:
        def inside() -> None:
            current().log("from a thread")
            current().progress(1)

        await ctx.step("t", inside)
        await asyncio.sleep(0.001)

    outlet = MemoryOutlet()
    await execution(threaded, outlet).run()
    assert {type(record) for record in outlet.best_effort} == {Log, Progress}
