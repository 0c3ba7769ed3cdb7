"""Workflows that open connections, in worker processes of their own."""

import asyncio
from pathlib import Path

from runtara.sdk import Context, connection, step, sync, workflow

SECRET_LENGTH = 43


@step
async def measured(n: int) -> int:
    return len((await connection("crm")).fields["token"])


@step
def measured_in_a_thread() -> int:
    return len(sync.connection("crm").fields["token"])


@workflow(connections=("crm",))
async def connected(ctx: Context, folder: str) -> list[int]:
    first = await measured(1)
    (Path(folder) / "begun").touch()
    while not (Path(folder) / "go").exists():
        await asyncio.sleep(0.01)
    return [first, await measured(2), await ctx.step("thread", measured_in_a_thread)]


@workflow(connections=("crm",))
async def undeclared(ctx: Context, name: str) -> int:
    """What it names, and what it does not."""
    return len((await connection(name)).fields["token"])
