"""The work that goes on while something is killed."""

import asyncio

from runtara.sdk import Context, step, workflow


@step
async def add(n: int) -> int:
    await asyncio.sleep(0.005)
    return n


@workflow
async def adds(ctx: Context, steps: int) -> int:
    total = 0
    for n in range(steps):
        total += await add(n)
    return total
