"""Workflows that the end-to-end tests run in worker processes of their own."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

from runtara.protocol.errors import ChildCancelled, ChildFailed, SignalTimeout
from runtara.sdk.context import Context
from runtara.sdk.retry import Retry, RetryAfter
from runtara.sdk.step import step
from runtara.sdk.workflow import workflow


@step
async def shout(word: str) -> str:
    return word.upper()


@step
async def note(folder: str, n: int) -> int:
    """Leaves a trace for each time it ran."""
    with (Path(folder) / "trace").open("a") as file:
        file.write(f"{n}\n")
    return n


@workflow
async def greet(ctx: Context, name: str) -> str:
    """One step."""
    return f"hello {await shout(name)}"


@workflow
async def count(ctx: Context, folder: str, steps: int, pause: float = 0.0) -> int:
    """Many steps, with a trace of each."""
    total = 0
    for n in range(steps):
        total += await note(folder, n)
        if pause:
            await asyncio.sleep(pause)
    return total


@workflow
async def guarded(ctx: Context, folder: str, steps: int) -> int:
    """Checkpoints before the work: at most once."""
    done = 0
    for n in range(steps):
        saved = await ctx.checkpoint(f"item-{n}", {"n": n})
        if not saved.existing:
            with (Path(folder) / "trace").open("a") as file:
                file.write(f"{n}\n")
            done += 1
    return done


@workflow
async def fail(ctx: Context, why: str) -> None:
    raise ValueError(why)


@workflow(restarts=2)
async def crash(ctx: Context) -> None:
    """Takes its process with it, every time."""
    os.write(2, b"this is the end\n")
    os._exit(3)


@workflow
async def rounds(ctx: Context, folder: str, left: int, keys: list[str]) -> list[str]:
    """Begins anew `left` times, noting its idempotency key each time; the last but one fails until it is repaired."""
    keys = [*keys, ctx.idempotency_key("pay")]
    with (Path(folder) / "keys").open("a") as file:
        file.write(f"{keys[-1]}\n")
    if left == 1 and not (Path(folder) / "repaired").exists():
        raise RuntimeError("not repaired yet")
    if left:
        await ctx.continue_as(folder=folder, left=left - 1, keys=keys)
    return keys


@workflow(linger=timedelta(0))
async def naps(ctx: Context, folder: str, seconds: float, times: int = 1) -> int:
    """Leaves its process for each nap, with a step before and behind it."""
    total = 0
    for n in range(times):
        total += await note(folder, 2 * n)
        with ctx.scope(str(n)):
            await ctx.sleep("nap", timedelta(seconds=seconds))
        total += await note(folder, 2 * n + 1)
    return total


@workflow(linger=timedelta(minutes=5))
async def dozes(ctx: Context, folder: str, seconds: float) -> int:
    """Sleeps in memory."""
    await note(folder, 0)
    await ctx.sleep(timedelta(seconds=seconds))
    return await note(folder, 1)


@workflow(linger=timedelta(0))
async def collect(ctx: Context, count: int, name: str = "item") -> list[object]:
    """Waits for signals, one after another, outside of memory."""
    return [await ctx.wait_signal(name) for _ in range(count)]


@workflow(linger=timedelta(minutes=5))
async def collect_in_memory(ctx: Context, count: int, name: str = "item") -> list[object]:
    return [await ctx.wait_signal(name) for _ in range(count)]


@workflow(linger=timedelta(0))
async def approval(ctx: Context, seconds: float) -> str:
    try:
        return await ctx.wait_signal("approved", type=str, timeout=timedelta(seconds=seconds))
    except SignalTimeout:
        return "nobody"


@workflow(linger=timedelta(0), timeout=timedelta(seconds=1))
async def waits_too_long(ctx: Context) -> None:
    await ctx.wait_signal("never")


@workflow(linger=timedelta(0))
async def waits_and_works(ctx: Context, folder: str, steps: int) -> object:
    """A wait beside work: it stays in memory until the work is done."""

    async def work() -> None:
        for n in range(steps):
            await note(folder, n)
            await asyncio.sleep(0.02)

    got, _ = await asyncio.gather(ctx.wait_signal("go"), work())
    return got


@workflow
async def double(ctx: Context, n: int) -> int:
    return n * 2


@workflow
async def fan_out(ctx: Context, count: int) -> int:
    """The sum of what many children return."""
    return sum(await asyncio.gather(*(ctx.call(double, n=n) for n in range(count))))


@workflow(linger=timedelta(0))
async def parent(ctx: Context, child: str, on_end: Literal["cancel", "leave", "wait"] = "cancel") -> str:
    """Starts a child that waits for a signal `item`, and tells how that ended."""
    started = await ctx.start_child("collect", {"count": 1}, id=child, on_end=on_end, labels={"parent": ctx.instance})
    if on_end != "cancel":
        return started.id
    try:
        return f"got {await started.result()}"
    except ChildCancelled:
        return "cancelled"


@workflow
async def circle(ctx: Context, turn: int = 1) -> int:
    """Calls itself, for ever if it may."""
    return await ctx.call(circle, turn=turn + 1)


@workflow(linger=timedelta(0))
async def unlucky_parent(ctx: Context, child: str) -> str:
    try:
        await ctx.call(child, {"why": "it had to"})
    except ChildFailed as exc:
        return f"{exc.attributes['type']}: {exc.attributes['message']}"
    return "no error"


@workflow
async def collect_from_failing(ctx: Context) -> None:
    await ctx.call(fail, why="always")


LATER = Retry(max_attempts=3, initial=timedelta(seconds=1), factor=1, jitter=0)


@step(key="call", retry=LATER)
async def refuse(folder: str, times: int, *, asking: bool = False) -> int:
    """Refuses so often; `asking` to come again."""
    tries = await note(folder, 1) and len((Path(folder) / "trace").read_text().split())
    if tries <= times:
        raise RetryAfter(0.5, "busy") if asking else ConnectionError("busy")
    return tries


@workflow(linger=timedelta(0))
async def retries(ctx: Context, folder: str, times: int, asking: bool = False) -> int:
    """A step that is tried again after a while, with a good one before it."""
    await ctx.step("good", good, folder)
    return await refuse(folder, times, asking=asking)


def good(folder: str) -> None:
    with (Path(folder) / "good").open("a") as file:
        file.write("ran\n")


@step(key="call", retry=LATER)
async def fail_and_crash(folder: str) -> str:
    if (Path(folder) / "repaired").exists():
        return "repaired"
    if (Path(folder) / "tried").exists():
        os._exit(3)
    (Path(folder) / "tried").touch()
    raise ConnectionError("try again")


@workflow(linger=timedelta(0), restarts=2)
async def crashes_when_it_tries_again(ctx: Context, folder: str) -> str:
    await ctx.step("good", good, folder)
    return await fail_and_crash(folder)
