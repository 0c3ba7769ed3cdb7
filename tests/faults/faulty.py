"""Workflows for the fault tests. Each leaves a line in a file for whatever its code really did."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from runtara.sdk import Context, Retry, SignalTimeout, step, workflow


def leave(folder: str, name: str, line: object) -> None:
    with (Path(folder) / name).open("a") as file:
        file.write(f"{line}\n")


@step(key="{n}")
async def work(folder: str, number: int, n: int) -> int:
    await asyncio.sleep(0.01)
    leave(folder, "trace", f"{number} {n}")
    return number * 1_000 + n


@workflow
async def steps(ctx: Context, folder: str, number: int, count: int) -> list[int]:
    """`count` steps one after another; each result depends on who asked."""
    return [await work(folder, number, n) for n in range(count)]


@workflow(restarts=1)
async def one_try(ctx: Context, folder: str, number: int, count: int) -> list[int]:
    """`steps`, with no second attempt unless somebody asks for it."""
    return [await work(folder, number, n) for n in range(count)]


@workflow
async def witnessed(ctx: Context, folder: str, number: int, count: int) -> list[int]:
    """`steps`, and a line for how it left its process."""
    try:
        return [await work(folder, number, n) for n in range(count)]
    finally:
        leave(folder, "ends", f"{os.getpid()} {number} {ctx.stopping}")


@step(retry=Retry(max_attempts=5, initial=timedelta(milliseconds=50)))
async def fail_twice(folder: str) -> str:
    leave(folder, "tries", "try")
    if len((Path(folder) / "tries").read_text().split()) < 3:
        raise ConnectionError("not yet")
    return "at last"


@workflow
async def stubborn(ctx: Context, folder: str) -> str:
    return await fail_twice(folder)


@step(retry=Retry(max_attempts=2, initial=timedelta(seconds=2.5), jitter=0))
async def fail_once(folder: str) -> str:
    leave(folder, "moments", time.monotonic())
    if len(trace(folder, "moments")) == 1:
        raise ConnectionError("not yet")
    return "at last"


@workflow
async def patient(ctx: Context, folder: str) -> str:
    return await fail_once(folder)


@step(key="{n}")
async def undo(folder: str, number: int, n: int) -> None:
    await asyncio.sleep(0.02)
    leave(folder, "undone", f"{number} {n}")


@step
async def die(folder: str) -> None:
    leave(folder, "deaths", os.getpid())
    os._exit(13)


@workflow(restarts=3)
async def doomed(ctx: Context, folder: str, number: int, count: int) -> None:
    """Each step with its undo before it; then one that takes its process with it, every time."""
    for n in range(count):
        await ctx.compensate(undo, folder, number, n)
        await work(folder, number, n)
    await die(folder)


@workflow
async def saga(ctx: Context, folder: str, number: int, count: int, fails: bool) -> None:
    """Each step with its undo before it; then it fails, or waits to be cancelled."""
    for n in range(count):
        await ctx.compensate(undo, folder, number, n)
        await work(folder, number, n)
    if fails:
        raise ValueError("at the very end")
    await ctx.wait_signal("never")


@step(key="call", retry=Retry(max_attempts=5, initial=timedelta(milliseconds=300), factor=1, jitter=0.5))
async def always_fails(folder: str, number: int) -> None:
    leave(folder, "trace", number)
    raise ConnectionError("never")


async def fail_slowly(ctx: Context, folder: str, number: int) -> None:
    await always_fails(folder, number)


fails_in_memory = workflow(name="fails_in_memory")(fail_slowly)
fails_out_of_memory = workflow(name="fails_out_of_memory", linger=timedelta(0))(fail_slowly)


@workflow
async def unlucky(ctx: Context) -> None:
    raise LookupError("nothing there")


@workflow(restarts=4)
async def deadly(ctx: Context, folder: str) -> None:
    """Takes its process with it, every time."""
    leave(folder, "deaths", os.getpid())
    os.write(2, f"last words of {os.getpid()}\n".encode())
    os._exit(7)


@workflow(restarts=2)
async def slowly_deadly(ctx: Context, folder: str, count: int) -> int:
    """Takes its process with it after each new step: restarts with progress are not counted."""
    for n in range(count):
        before = len(trace(folder))
        await work(folder, 0, n)
        if len(trace(folder)) > before:
            await ctx.checkpoint(f"seen-{n}", n)
            os._exit(7)
    return count


def trace(folder: str, name: str = "trace") -> list[str]:
    file = Path(folder) / name
    return file.read_text().splitlines() if file.exists() else []


async def alternate(folder: str, number: int, rounds: int, sleep: Callable[[str, timedelta], Awaitable[None]]) -> int:
    for n in range(rounds):
        await work(folder, number, n)
        await sleep(f"nap-{n}", timedelta(milliseconds=100 + 37 * ((number + n) % 7)))
    return rounds


@workflow(linger=timedelta(0))
async def naps(ctx: Context, folder: str, number: int, rounds: int) -> int:
    """Steps and sleeps in turn; each sleep out of memory."""
    return await alternate(folder, number, rounds, ctx.sleep)


@workflow
async def dozes(ctx: Context, folder: str, number: int, rounds: int) -> int:
    """Steps and sleeps in turn, in memory."""
    return await alternate(folder, number, rounds, ctx.sleep)


@workflow(linger=timedelta(0))
async def collect(ctx: Context, count: int) -> list[object]:
    """Waits for signals, out of memory, with an operation between them."""
    got: list[object] = []
    for n in range(count):
        got.append(await ctx.wait_signal("item"))
        await ctx.step(f"s{n}", lambda: None)
    return got


@workflow(linger=timedelta(0))
async def approval(ctx: Context, seconds: float) -> str:
    try:
        return await ctx.wait_signal("approved", type=str, timeout=timedelta(seconds=seconds))
    except SignalTimeout:
        return "nobody"


@workflow
async def leaf(ctx: Context, folder: str, number: int, n: int) -> int:
    return await work(folder, number, n)


@workflow(linger=timedelta(0))
async def tree(ctx: Context, folder: str, number: int, count: int) -> int:
    """A parent and its children, all of them with steps."""
    return sum(await asyncio.gather(*(ctx.call(leaf, folder, number, n) for n in range(count))))
