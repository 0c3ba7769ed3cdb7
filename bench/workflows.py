"""What is measured: the smallest workflows that do what a budget names, with states of 100 bytes."""

import asyncio
import base64
import os
import signal
import time
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from runtara.sdk import Context, step, workflow

STATE = "x" * 90


@lru_cache
def filling(size: int, *, noise: bool) -> str:
    return base64.b64encode(os.urandom(size * 3 // 4)).decode() if noise else "x" * size


@step
async def work(n: int) -> str:
    return STATE


@step
async def large(n: int, size: int, noise: bool) -> str:
    """A text that was never there before; as `noise`, one that hardly anything can compress."""
    return f"{time.time_ns()} {filling(size, noise=noise)}"


@workflow(name="one-step")
async def one_step(ctx: Context) -> int:
    await work(1)
    return 1


@workflow(name="sequential")
async def sequential(ctx: Context, steps: int) -> list[float]:
    """Seconds of each step, as the workflow saw them."""
    seconds = []
    for n in range(steps):
        began = time.perf_counter()
        await work(n)
        seconds.append(time.perf_counter() - began)
    return seconds


@workflow(name="checkpoints")
async def checkpoints(ctx: Context, count: int) -> list[float]:
    seconds = []
    for n in range(count):
        began = time.perf_counter()
        await ctx.checkpoint(f"key-{n}", STATE)
        seconds.append(time.perf_counter() - began)
    return seconds


@workflow(name="large-states")
async def large_states(ctx: Context, count: int, size: int, noise: bool) -> list[float]:
    filling(size, noise=noise)  # made once, and not measured
    seconds = []
    for n in range(count):
        began = time.perf_counter()
        await large(n, size, noise)
        seconds.append(time.perf_counter() - began)
    return seconds


@workflow(name="dies")
async def dies(ctx: Context, steps: int, after: int, folder: str) -> int:
    """Kills its process after step `after`, once; leaves the time of each attempt's first new step in `folder`."""
    marker = Path(folder) / "died"
    for n in range(steps):
        if n == after and marker.exists():
            first = time.perf_counter()
            await work(n)
            (Path(folder) / "resumed").write_text(f"{time.time()} {time.perf_counter() - first}")
            continue
        await work(n)
        if n == after - 1 and not marker.exists():
            marker.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
    return steps


@workflow(name="resident")
async def resident(ctx: Context, seconds: float) -> int:
    """One step, then in memory until the time is over."""
    await work(1)
    await asyncio.sleep(seconds)
    return 1


@workflow(name="replays")
async def replays(ctx: Context, steps: int, folder: str) -> float:
    """Records `steps` steps, dies, and on its return measures what each recorded one costs."""
    marker = Path(folder) / "recorded"
    began = time.perf_counter()
    for n in range(steps):
        await work(n)
    seconds = time.perf_counter() - began
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return seconds


async def sleep_and_tell(ctx: Context, seconds: float) -> float:
    await ctx.sleep("nap", timedelta(seconds=seconds))
    return time.time()


@workflow(name="sleeps")
async def sleeps(ctx: Context, seconds: float) -> float:
    """When it woke."""
    return await sleep_and_tell(ctx, seconds)


@workflow(name="sleeps-away", linger=timedelta(seconds=0.2))
async def sleeps_away(ctx: Context, seconds: float) -> float:
    """When it woke, out of memory."""
    return await sleep_and_tell(ctx, seconds)


@workflow(name="sleeps-here", linger=timedelta(hours=1))
async def sleeps_here(ctx: Context, seconds: float) -> float:
    """When it woke, in memory."""
    return await sleep_and_tell(ctx, seconds)


@step
async def stamp(n: int) -> float:
    return time.time()


async def answer(ctx: Context, count: int) -> list[float]:
    """When the step behind each signal ran."""
    stamps = []
    for n in range(count):
        await ctx.wait_signal("go")
        stamps.append(await stamp(n))
    return stamps


@workflow(name="answers-away", linger=timedelta(0))
async def answers_away(ctx: Context, count: int) -> list[float]:
    return await answer(ctx, count)


@workflow(name="answers-here", linger=timedelta(hours=1))
async def answers_here(ctx: Context, count: int) -> list[float]:
    return await answer(ctx, count)


@workflow(name="child")
async def child(ctx: Context, n: int) -> int:
    return n


@workflow(name="fan-out")
async def fan_out(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*(ctx.call(child, n=n) for n in range(count))))
