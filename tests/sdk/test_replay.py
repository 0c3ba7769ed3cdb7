"""Laws of replay, over random orders and crashes: every call gets its own record, and the result is always the same."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtara.protocol.messages import Memo
from runtara.sdk import Context, StepFailed, Workflow, step, sync, workflow
from tests.support.outlet import MemoryOutlet, execution, run_until_killed

turns: dict[str, int] = {}
calls: Counter[str] = Counter()


async def wait_for_turn(name: str) -> None:
    calls[name] += 1
    for _ in range(turns.get(name, 0)):
        await asyncio.sleep(0)


@step
async def fetch(order: str) -> str:
    await wait_for_turn(f"fetch {order}")
    return f"parcel of {order}"


@step
async def charge(order: str, parcel: str) -> str:
    await wait_for_turn(f"charge {order}")
    return f"receipt of {order} for {parcel}"


async def pipeline(ctx: Context, order: str) -> str:
    parcel = await fetch(order)
    with ctx.scope(order):
        await ctx.emit("fetched", {"order": order})
    return await charge(order, parcel)


@workflow
async def gathered(ctx: Context, orders: list[str]) -> list[str]:
    return await asyncio.gather(*(pipeline(ctx, order) for order in orders))


@workflow
async def grouped(ctx: Context, orders: list[str]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pipeline(ctx, order)) for order in orders]
    return [task.result() for task in tasks]


@step
async def refuse(order: str) -> str:
    raise ValueError(order)


@workflow
async def mixed(ctx: Context, orders: list[str]) -> list[Any]:
    seen: list[Any] = []
    await ctx.now("begin")
    for order in orders:
        with ctx.scope(order):
            seen.append((await ctx.checkpoint("order", {"id": order})).state)
            seen.append(await fetch(order))
            try:
                await refuse(order)
            except StepFailed as exc:
                seen.append(str(exc))
            seen.append(str(ctx.uuid("id")))
    seen.append(await asyncio.gather(*(ctx.step(f"x-{order}", str.upper, order) for order in orders)))
    return seen


@step
def pack(order: str) -> str:
    calls[f"pack {order}"] += 1
    return f"box of {order}"


@workflow
def blocking(ctx: sync.Context, orders: list[str]) -> list[str]:
    return [f"{pack(order)}, {ctx.step(order, fetch, order)}" for order in orders]


ORDERS = ["alice", "bob", "carol", "dave"]
names = [f"{kind} {order}" for kind in ("fetch", "charge") for order in ORDERS]
orders_of_finish = st.fixed_dictionaries({name: st.integers(0, 12) for name in names})


def in_loop(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.run(run())


async def resumed(flow: Workflow[..., Any], memos: list[Memo], orders: list[str]) -> Any:
    outlet = MemoryOutlet()
    await execution(flow, outlet, {"orders": orders}, memos=memos).run()
    recorded = {memo.key for memo in memos}
    assert recorded.isdisjoint(outlet.keys)
    return outlet.result


@settings(max_examples=60, deadline=None)
@given(
    before=orders_of_finish, after=orders_of_finish, crash=st.integers(0, 12), flow=st.sampled_from([gathered, grouped])
)
def test_branches_that_call_the_same_step_each_get_their_own_result(
    before: dict[str, int], after: dict[str, int], crash: int, flow: Workflow[..., Any]
) -> None:
    async def check() -> None:
        turns.update(before)
        killed = await run_until_killed(flow, crash, orders=ORDERS)
        memos = list(killed.memos())
        recorded = [memo.key for memo in memos if memo.type == "CheckpointSaved"]
        calls.clear()
        turns.update(after)
        result = await resumed(flow, memos, ORDERS)
        assert result == [f"receipt of {order} for parcel of {order}" for order in ORDERS]
        assert sum(calls.values()) == 8 - len(recorded)
        assert max(calls.values(), default=0) <= 1

    in_loop(check)


@settings(max_examples=30, deadline=None)
@given(before=orders_of_finish, after=orders_of_finish, crash=st.integers(0, 4))
def test_equal_calls_in_different_branches_share_their_records_fairly(
    before: dict[str, int], after: dict[str, int], crash: int
) -> None:
    async def check() -> None:
        turns.update(before)
        same = ["alice", "alice", "alice"]
        killed = await run_until_killed(gathered_fetch, crash, orders=same)
        calls.clear()
        turns.update(after)
        await resumed(gathered_fetch, list(killed.memos()), same)
        assert calls["fetch alice"] == 3 - len(killed.keys)

    in_loop(check)


@workflow
async def gathered_fetch(ctx: Context, orders: list[str]) -> list[str]:
    return await asyncio.gather(*(fetch(order) for order in orders))


@pytest.mark.parametrize("flow", [gathered, grouped, mixed, blocking], ids=lambda flow: str(flow.name))
async def test_a_crash_after_every_single_record_changes_no_result(flow: Workflow[..., Any]) -> None:
    turns.clear()
    whole = MemoryOutlet()
    await execution(flow, whole, {"orders": ORDERS[:3]}).run()
    expected = whole.result
    for records in range(len(whole.records)):
        killed = await run_until_killed(flow, records, orders=ORDERS[:3])
        assert len(killed.records) == records
        assert await resumed(flow, list(killed.memos()), ORDERS[:3]) == expected


async def test_crashing_again_and_again_one_record_at_a_time_still_ends() -> None:
    memos: list[Memo] = []
    for _ in range(100):
        killed = await run_until_killed(mixed, 1, memos=memos, orders=ORDERS[:2])
        memos += killed.memos(len(memos))
        if killed.records and type(killed.last).__name__ == "Completed":
            break
    else:
        pytest.fail("it never ended")
    assert len(memos) == len({memo.key for memo in memos})
