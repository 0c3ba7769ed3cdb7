"""A workflow that leaves a synced line for each step that it does, so that what was recorded can be held against it."""

import os
import secrets
import time

from runtara.sdk import Context, workflow


def note(file: str, n: int) -> str:
    token = f"{n} {secrets.token_hex(8)}"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{token}\n".encode())
    os.close(handle)
    time.sleep(0.05)
    return token


@workflow
async def tally(ctx: Context, file: str, steps: int) -> list[str]:
    return [await ctx.step(f"step-{n}", note, file, n) for n in range(steps)]
