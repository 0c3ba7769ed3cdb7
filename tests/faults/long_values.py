"""Workflows with long values for the fault tests, and processes that die just before they would name one."""

import os
import signal
from pathlib import Path

from runtara.protocol.blobs import Blob
from runtara.sdk import Context, step, workflow
from runtara.sdk.blobs import Blobs
from tests.faults.faulty import leave

_put = Blobs.put


async def put_and_die(self: Blobs, text: bytes, *, key: str) -> Blob:
    """The first process that stores the value of a step called `fatal` dies between that and the record."""
    blob = await _put(self, text, key=key)
    folder = os.environ.get("DIES_IN")
    if folder is not None and key.startswith("fatal/") and not (Path(folder) / "died").exists():
        (Path(folder) / "died").write_text(blob.hash)
        os.kill(os.getpid(), signal.SIGKILL)
    return blob


Blobs.put = put_and_die  # type: ignore[method-assign]


@step(key="{n}")
async def long(folder: str, number: int, n: int, size: int) -> str:
    leave(folder, "trace", f"{number} {n}")
    return f"{number}-{n}".ljust(size, "x")


@step(key="{n}")
async def fatal(folder: str, n: int, size: int) -> str:
    leave(folder, "trace", n)
    return f"{n}".ljust(size, "x")


@workflow
async def long_steps(ctx: Context, folder: str, number: int, count: int, size: int) -> list[str]:
    """The beginning of each value, and its length."""
    values = [await long(folder, number, n, size) for n in range(count)]
    return [f"{value.rstrip('x')} {len(value)}" for value in values]


@workflow
async def dies_between(ctx: Context, folder: str, size: int) -> list[str]:
    values = [await fatal(folder, n, size) for n in range(3)]
    return [f"{value.rstrip('x')} {len(value)}" for value in values]


@workflow
async def one_long(ctx: Context, size: int) -> str:
    value = await ctx.step("value", lambda: os.urandom(size // 2).hex())
    return f"{len(value)}"
