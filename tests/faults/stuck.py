"""Workflows whose code does not end when it is told to, and their neighbours."""

import asyncio
import os
import time
from datetime import timedelta

from runtara.sdk import Context, Retry, Stopped, step, sync, workflow
from tests.faults.faulty import leave, work

FOREVER_SECONDS = 1e6


@workflow
def loops_in_a_thread(ctx: sync.Context, folder: str) -> None:
    leave(folder, "stuck", os.getpid())
    try:
        while True:
            pass
    except Stopped:
        leave(folder, "stopped", os.getpid())
        raise


@workflow
async def swallows(ctx: Context, folder: str) -> None:
    """Async code that does not let itself be cancelled."""
    leave(folder, "stuck", os.getpid())
    while True:
        try:
            await asyncio.sleep(FOREVER_SECONDS)
        except asyncio.CancelledError:
            leave(folder, "swallowed", os.getpid())


@workflow
def sleeps_in_a_thread(ctx: sync.Context, folder: str) -> None:
    leave(folder, "stuck", os.getpid())
    time.sleep(FOREVER_SECONDS)


@workflow
async def blocks_the_loop(ctx: Context, folder: str) -> None:
    await asyncio.sleep(0.5)  # its neighbours get a moment
    leave(folder, "stuck", os.getpid())
    while True:
        pass


@step(key="undo")
async def undo(folder: str) -> None:
    leave(folder, "undone", os.getpid())


@workflow
async def swallows_with_something_to_undo(ctx: Context, folder: str) -> None:
    await ctx.compensate(undo, folder)
    leave(folder, "stuck", os.getpid())
    while True:
        try:
            await asyncio.sleep(FOREVER_SECONDS)
        except asyncio.CancelledError:
            leave(folder, "swallowed", os.getpid())


@workflow
async def neighbour(ctx: Context, folder: str, number: int, count: int) -> list[int]:
    """Steps, and checkpoints that guard what must not be repeated."""
    results = []
    for n in range(count):
        results.append(await work(folder, number, n))
        if not (await ctx.checkpoint(f"once-{n}", n)).existing:
            leave(folder, "once", f"{number} {n}")
        await asyncio.sleep(0.05)
    return results


@step
def compute(folder: str, seconds: float) -> int:
    leave(folder, "computes", os.getpid())
    time.sleep(seconds)
    return os.getpid()


@workflow
async def healthy(ctx: Context, folder: str, seconds: float) -> int:
    """A long blocking step, as it should be: in a thread."""
    return await ctx.step("long", compute, folder, seconds)


@workflow
async def impolite(ctx: Context, folder: str, seconds: float) -> int:
    """A long blocking step that blocks the event loop."""
    leave(folder, "computes", os.getpid())
    await ctx.step("long", block, seconds)
    return os.getpid()


async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251  # that is the point


@step(timeout=timedelta(milliseconds=500), retry=Retry(max_attempts=2, initial=timedelta(0)))
def too_slow(folder: str) -> None:
    leave(folder, "stuck", os.getpid())
    time.sleep(FOREVER_SECONDS)


@workflow
async def leaves_threads_behind(ctx: Context, folder: str) -> None:
    await ctx.step("slow", too_slow, folder)
