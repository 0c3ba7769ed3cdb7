"""Children: asked for once, the same ones in every attempt, and what their ends do to the parent."""

import asyncio
from typing import Any

import orjson
import pytest

from runtara.protocol.errors import BadInput, ChildCancelled, ChildFailed, InvalidInput, KeyMismatch, WireError
from runtara.protocol.ids import child_id
from runtara.protocol.records import Completed, Continued, Failed, Parked, Suspended
from runtara.sdk import Context, Workflow, sync, workflow
from tests.support.outlet import outcome, run

from .test_waits import Life


@workflow
async def audit(ctx: Context, order: str, amount: int = 1) -> dict[str, int]:
    return {order: amount}


@workflow
async def parent(ctx: Context, orders: list[str]) -> list[dict[str, int]]:
    return list(await asyncio.gather(*(ctx.call(audit, order=order) for order in orders)))


def keys(life: Life) -> dict[str, str]:
    """The keys of the children that were asked for, by their order."""
    found = {}
    for record in life.outlet.all(Parked):
        assert record.child is not None
        found[orjson.loads(bytes(record.child.input))["order"]] = record.key
    return found


async def both_asked(code: Workflow[..., Any] = parent) -> Life:
    life = Life(code, orders=["a", "b"])
    await life.outlet.until(2)
    await life.parked(*keys(life).values())
    return life


async def test_a_gather_over_children_gets_each_ones_own_result() -> None:
    life = await both_asked()
    life.resolve(keys(life)["b"], "child", {"b": 2})
    life.resolve(keys(life)["a"], "child", {"a": 1})
    assert (await life.end()).result == [{"a": 1}, {"b": 2}]
    first = life.outlet.all(Parked)[0]
    assert first.child is not None
    assert (first.kind, first.child.workflow, first.child.instance, first.child.on_end) == (
        "child", "audit", None, "cancel",
    )  # fmt: skip
    assert first.key.startswith("child~audit~")


async def test_a_resumed_parent_asks_for_nothing_again_whatever_the_order_of_its_calls() -> None:
    life = await both_asked()
    asked = keys(life)
    memos = [*life.outlet.memos(), outcome(asked["b"], "child", {"b": 2})]
    life.task.cancel()
    resumed = Life(parent, memos=memos, orders=["b", "a"])
    await resumed.parked(asked["a"])
    resumed.resolve(asked["a"], "child", {"a": 1})
    outlet = await resumed.end()
    assert (outlet.result, outlet.all(Parked)) == ([{"b": 2}, {"a": 1}], [])


async def test_the_same_child_twice_is_two_children() -> None:
    life = Life(parent, orders=["a", "a"])
    await life.outlet.until(2)
    first, second = (record.key for record in life.outlet.all(Parked))
    assert second == f"{first}#2"
    life.task.cancel()


@workflow
async def careful(ctx: Context) -> str:
    child = await ctx.start_child(audit, "x", key="audit")
    try:
        return str(await child.result())
    except ChildCancelled as exc:
        return f"cancelled {exc.attributes['instance']}"
    except ChildFailed as exc:
        return f"{exc.attributes['type']}: {exc.attributes['message']} {exc.attributes['details']}"


async def test_the_end_of_a_child_is_the_same_error_now_and_after_a_resume() -> None:
    id = child_id("i-1", "audit")
    failed = WireError(code="ValueError", message="no", attributes={"traceback": "…", "n": 1})
    nested = WireError(code="ChildCancelled", message="gone", attributes={"instance": "another", "key": "k"})
    refused = WireError(code="UnknownWorkflow", message="nobody", attributes={})
    cancelled = WireError(code="ChildCancelled", message="", attributes={"instance": id, "key": "audit"})
    ends = {
        "ValueError: no {'n': 1}": failed,
        "ChildCancelled: gone {'instance': 'another', 'key': 'k'}": nested,
        "UnknownWorkflow: nobody {}": refused,
        f"cancelled {id}": cancelled,
    }
    for text, error in ends.items():
        life = Life(careful)
        await life.parked("audit")
        life.resolve("audit", "child", error=error)
        assert (await life.end()).result == text
        resumed = await run(careful, memos=[*life.outlet.memos(), outcome("audit", "child", error=error)])
        assert (resumed.result, resumed.all(Parked)) == (text, [])


async def test_labels_are_said_with_the_request_and_make_no_other_child() -> None:
    @workflow
    async def code(ctx: Context, team: str) -> list[str]:
        started = await ctx.start_child(audit, "a", key="k", labels={"team": team})
        called = await ctx.start_child("audit", {"order": "b"}, labels={"team": team})
        return [started.id, called.id]

    first = await run(code, team="x")
    assert [record.child.labels for record in first.all(Parked) if record.child is not None] == [{"team": "x"}] * 2
    again = await run(code, memos=first.memos(), team="y")
    assert (again.all(Parked), again.result) == ([], first.result)


async def test_a_child_knows_its_id_before_it_ends() -> None:
    ids: list[str] = []

    @workflow
    async def code(ctx: Context) -> None:
        ids.append((await ctx.start_child(audit, "a", key="k")).id)
        ids.append((await ctx.start_child(audit, "b", id="mine")).id)

    outlet = await run(code)
    await run(code, memos=list(outlet.memos()))
    assert ids == [child_id("i-1", "k"), "mine"] * 2


async def test_a_call_that_the_code_gives_up_goes_on_and_is_found_again() -> None:
    @workflow
    async def code(ctx: Context) -> dict[str, int]:
        for _ in range(2):
            try:
                async with asyncio.timeout(0.01):
                    await ctx.call(audit, "a")
            except TimeoutError:
                continue
        return await ctx.call(audit, "a")

    life = Life(code)
    await life.outlet.until(1)
    (key,) = keys(life).values()
    async with asyncio.timeout(5):
        while life.attempt._idleness.keys() != (key,):  # it no longer counts the time
            await asyncio.sleep(0.001)
    life.resolve(key, "child", {"a": 1})
    outlet = await life.end()
    assert (outlet.result, len(outlet.records)) == ({"a": 1}, 2)


async def test_a_result_that_two_tasks_ask_for_goes_to_both_and_stays() -> None:
    @workflow
    async def code(ctx: Context) -> list[dict[str, int]]:
        child = await ctx.start_child(audit, "a", key="k")
        return [*await asyncio.gather(child.result(), child.result()), await child.result()]

    life = Life(code)
    await life.parked("k", "k")
    life.resolve("k", "child", {"a": 1})
    assert (await life.end()).result == [{"a": 1}] * 3


@pytest.mark.parametrize("last", [Completed, Failed, Continued])
async def test_a_parent_ends_after_the_child_that_it_is_to_wait_for(last: type) -> None:
    @workflow
    async def code(ctx: Context) -> str:
        await ctx.start_child(audit, "a", key="k", on_end="wait")
        await ctx.start_child(audit, "b", on_end="leave")
        if last is Failed:
            raise ValueError("done for")
        if last is Continued:
            await ctx.continue_as()
        return "done"

    life = Life(code)
    await life.parked("k")
    policies = [record.child.on_end for record in life.outlet.all(Parked) if record.child is not None]
    assert policies == ["cancel", "leave"]
    life.resolve("k", "child", error=WireError(code="ValueError", message="whatever"))
    assert type((await life.end()).last) is last


async def test_a_parent_that_only_waits_for_its_children_can_leave() -> None:
    life = await both_asked()
    life.attempt.leave_if_idle()
    last = (await life.end()).last
    assert isinstance(last, Suspended)
    assert sorted(last.keys) == sorted(keys(life).values())


async def test_a_wrong_call_is_refused_before_anything_is_said() -> None:
    @workflow
    async def code(ctx: Context) -> None:
        with pytest.raises(InvalidInput):
            await ctx.call(audit, ordre="a")  # type: ignore[call-overload]
        with pytest.raises(InvalidInput):
            await ctx.call(audit, order=5)  # type: ignore[call-overload]
        wrong: list[Any] = [{"n": 5}, {"n": "x" * 1_000}, {"n": "a\nb"}, {str(n): "" for n in range(100)}]
        for labels in wrong:
            with pytest.raises(BadInput, match="label"):
                await ctx.call(audit, order="a", labels=labels)
        with pytest.raises(TypeError, match="on_end"):
            await ctx.call(audit, order="a", on_end="stay")  # type: ignore[call-overload]
        await ctx.checkpoint("k", 1)

    outlet = await run(code)
    assert outlet.all(Parked) == []

    @workflow(name="code")
    async def changed(ctx: Context) -> None:
        with pytest.raises(KeyMismatch, match="child of workflow 'audit'"):
            await ctx.call(audit, order="a", key="k")

    assert type((await run(changed, memos=list(outlet.memos()))).last) is Completed


async def test_the_blocking_context_has_children_too() -> None:
    @workflow
    def code(ctx: sync.Context) -> list[dict[str, int]]:
        child = ctx.start_child(audit, "a", key="k")
        assert child.id == child_id("i-1", "k")
        return [child.result(), ctx.call(audit, "b", key="l")]

    life = Life(code)
    await life.parked("k")
    life.resolve("k", "child", {"a": 1})
    await life.parked("l")
    life.resolve("l", "child", {"b": 1})
    assert (await life.end()).result == [{"a": 1}, {"b": 1}]
