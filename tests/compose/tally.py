"""A workflow that leaves a synced line for each step that it does, so that what was recorded can be held against it.

It goes on until a file says that it is enough.
"""

import os
import secrets
import time
from itertools import count
from pathlib import Path

from runtara.sdk import Context, workflow

LAST = " last"


def note(file: str, n: int) -> str:
    token = f"{n} {secrets.token_hex(8)}{LAST if Path(f'{file}.enough').exists() else ''}"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{token}\n".encode())
    os.fsync(handle)
    os.close(handle)
    time.sleep(0.05)
    return token


@workflow
async def tally(ctx: Context, file: str) -> list[str]:
    tokens: list[str] = []
    for n in count():
        tokens.append(await ctx.step(f"step-{n}", note, file, n))
        if tokens[-1].endswith(LAST):
            break
    return tokens
