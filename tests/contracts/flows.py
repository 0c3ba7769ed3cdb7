"""A corpus of workflows for both platforms. Waits leave memory at once, so the order of events is the same in each."""

import asyncio
from datetime import timedelta
from typing import Any

from runtara.sdk import Context, Retry, SignalTimeout, Workflow, step, sync, workflow

SOON = timedelta(milliseconds=300)  # longer than it takes to leave memory
AT_ONCE = timedelta(0)


class Declined(Exception):
    pass


@step
async def double(n: int) -> int:
    return 2 * n


@step
def shout(word: str) -> str:
    return word.upper()


@step(raises=(Declined,))
async def decline(amount: int) -> None:
    raise Declined(f"{amount} is too much")


tries: dict[str, int] = {}


@step(retry=Retry(max_attempts=3, initial=timedelta(milliseconds=1)))
async def flaky(instance: str) -> int:
    tries[instance] = tries.get(instance, 0) + 1
    if tries[instance] < 3:
        raise RuntimeError("not yet")
    return tries[instance]


@workflow
async def steps(ctx: Context, n: int) -> int:
    saved = await ctx.checkpoint("begun", {"n": n})
    await ctx.emit("progressed", {"by": n})
    with ctx.scope("inner"):
        first = await double(saved.state["n"])
    word = await ctx.step("shout", shout, "a")
    return first + len(word)


@workflow
async def at_once(ctx: Context, count: int) -> list[int]:
    return list(await asyncio.gather(*(double(n) for n in range(count))))


@workflow
def in_a_thread(ctx: sync.Context, word: str) -> str:
    ctx.checkpoint("begun", word)
    return shout(word)


@workflow
async def retried(ctx: Context) -> int:
    return await flaky(ctx.instance)


@workflow
async def declined(ctx: Context, amount: int) -> str:
    try:
        await decline(amount)
    except Declined as exc:
        return str(exc)
    return "paid"


@workflow
async def failing(ctx: Context) -> None:
    await double(1)
    raise Declined("never")


@workflow(linger=AT_ONCE)
async def napping(ctx: Context) -> int:
    before = await double(1)
    await ctx.sleep("nap", SOON)
    return before + await double(2)


@workflow(linger=AT_ONCE)
async def napping_then_failing(ctx: Context) -> None:
    await ctx.sleep(SOON)
    raise Declined("never")


@workflow(linger=AT_ONCE)
async def approval(ctx: Context, patience: float) -> object:
    try:
        return await ctx.wait_signal("approved", timeout=timedelta(seconds=patience))
    except SignalTimeout:
        return "nobody"


@workflow(linger=AT_ONCE)
async def parent(ctx: Context, n: int) -> int:
    return n + await ctx.call(napping, labels={"of": "parent"})


@workflow(linger=AT_ONCE)
async def parent_of_failing(ctx: Context) -> str:
    try:
        await ctx.call(napping_then_failing)
    except Exception as exc:
        return type(exc).__name__
    return "no error"


@workflow
async def rounds(ctx: Context, left: int) -> int:
    await double(left)
    if left:
        await ctx.continue_as(left=left - 1)
    return left


ALL: tuple[Workflow[..., Any], ...] = (
    steps, at_once, in_a_thread, retried, declined, failing, napping, napping_then_failing, approval, parent,
    parent_of_failing, rounds,
)  # fmt: skip
