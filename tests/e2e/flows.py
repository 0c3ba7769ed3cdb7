"""Workflows that the end-to-end tests run in worker processes of their own."""

import asyncio
import os
from pathlib import Path

from runtara.sdk.context import Context
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
