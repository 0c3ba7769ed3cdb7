"""Workflows for what processes and containers do, and have done to them."""

import asyncio
import os
import secrets
import signal
import sys
import time
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import nats

from runtara.sdk import Context, connection, workflow

if os.environ.get("FAIL_AT_IMPORT"):
    raise ImportError("the moon is not in this phase")


@cache
def life() -> str:
    """Of this process: another in each."""
    return secrets.token_hex(8)


@workflow
async def greet(ctx: Context, name: str) -> str:
    return "hello " + await ctx.step("upper", name.upper)


@workflow(connections=("crm",))
async def opens(ctx: Context) -> int:
    return len((await connection("crm")).fields["token"])


@workflow(linger=timedelta(seconds=0.1))
async def keep(ctx: Context, value: str) -> str:
    """A long input, a long step that the next process reads again, a long result."""
    kept = await ctx.step("kept", lambda: value + "!")
    await ctx.wait_signal("go")
    return kept


@workflow(linger=timedelta(seconds=0.1))
async def nap(ctx: Context, seconds: float) -> list[str]:
    before = await ctx.step("before", life)
    await ctx.sleep("nap", timedelta(seconds=seconds))
    return [before, await ctx.step("after", life)]


@workflow
async def count(ctx: Context, steps: int, pause: float = 0.05) -> list[str]:
    """Who did which step."""

    async def one() -> str:
        await asyncio.sleep(pause)
        return life()

    return [await ctx.step(f"step-{n}", one) for n in range(steps)]


@workflow
async def guarded(ctx: Context, steps: int, pause: float = 0.1) -> int:
    for n in range(steps):
        await ctx.checkpoint(f"step-{n}", life())
        await asyncio.sleep(pause)
    return steps


@workflow
async def leaves(ctx: Context, code: int) -> None:
    """Exits, as if all were well or not."""
    sys.stderr.write("so long\n")
    sys.stderr.flush()
    os._exit(code)


@workflow
async def hogs(ctx: Context) -> None:
    await ctx.step("first", life)
    held = []
    while True:
        held.append(bytearray(os.urandom(1024) * 16_384))
        await asyncio.sleep(0.01)


@workflow
async def spins(ctx: Context) -> None:
    """Neither obeys nor ends."""
    await ctx.step("first", life)
    while True:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            continue


@workflow
async def deaf(ctx: Context) -> None:
    """Hears no signal but the last, and blocks its loop."""
    await ctx.step("first", life)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)  # noqa: ASYNC251  # to be deaf is what it is for


@workflow
async def forks(ctx: Context) -> str:
    """As many processes as it may."""
    for n in range(10_000):
        try:
            pid = os.fork()
        except OSError as exc:
            return f"{n} and then {exc.strerror}"
        if pid == 0:
            time.sleep(600)  # noqa: ASYNC251  # in a process of its own
    return "no limit"


@workflow
async def fills(ctx: Context) -> str:
    written, block = 0, b"x" * 1024 * 1024
    file = os.open("/tmp/full", os.O_CREAT | os.O_WRONLY)
    try:
        while written < 10**10:
            written += os.write(file, block)
    except OSError as exc:
        return f"{written // 1024**2} MiB and then {exc.strerror}"
    return "no limit"


@workflow
async def floods(ctx: Context, lines: int) -> str:
    for n in range(lines):
        sys.stderr.write(f"{n} {'x' * 1_000}\n")
    return "done"


@workflow
async def looks(ctx: Context) -> dict[str, Any]:
    """What it finds around it."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    secrets_folder = Path("/run/secrets")
    return {
        "uid": os.getuid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status["NoNewPrivs"],
        "root_is_writable": _writes(Path("/etc/x")),
        "secrets": {file.name: file.read_text() for file in secrets_folder.iterdir()}
        if secrets_folder.exists()
        else {},
        "secret_modes": sorted({oct(file.stat().st_mode & 0o777) for file in secrets_folder.iterdir()})
        if secrets_folder.exists()
        else [],
        "environ": dict(os.environ),
    }


@workflow
async def reaches(ctx: Context, host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # a time-out, too
        return False
    writer.close()
    return True


def _writes(path: Path) -> bool:
    try:
        path.write_text("x")
    except OSError:
        return False
    return True


@workflow
async def breaks_out(ctx: Context, publishes: list[str], subscriptions: list[str]) -> dict[str, list[str]]:
    """What the server lets it publish and subscribe to, with the address and the credential that it finds."""
    errors: list[str] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error).lower())

    def let_through(verb: str, subjects: list[str]) -> list[str]:
        return [s for s in subjects if not any(f'{verb} "{s.lower()}"' in error for error in errors)]

    async def attack() -> dict[str, list[str]]:
        url, file = os.environ["RUNTARA_NATS_URL"], os.environ["RUNTARA_NATS_CREDENTIALS_FILE"]
        connection = await nats.connect(url, user_credentials=file, error_cb=on_error)
        for subject in publishes:
            await connection.publish(subject, b"[]")
        for subject in subscriptions:
            await connection.subscribe(subject)
        await connection.flush()
        await asyncio.sleep(0.5)  # what was refused is told apart from the answer to the flush
        await connection.close()
        return {
            "published": let_through("publish to", publishes), "heard": let_through("subscription to", subscriptions)
        }  # fmt: skip

    return await ctx.step("attack", attack)


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no luck")


@workflow
async def burns(ctx: Context) -> None:
    while True:
        sum(range(100_000))


@workflow
async def descriptors(ctx: Context) -> list[str]:
    folder = Path("/proc/self/fd")
    return [os.readlink(link) for link in folder.iterdir() if link.is_symlink() and link.exists()]
