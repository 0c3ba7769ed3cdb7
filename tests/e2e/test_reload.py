"""`--reload`: new code takes over without losing what runs; broken code changes nothing."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(60)

SOURCE = """
import asyncio
from runtara.sdk import Context, step, workflow

@workflow
async def version(ctx: Context, wait: float = 0.0) -> int:
    for n in range(int(wait * 50)):
        await tick(n)
    return {version}

@step
async def tick(n: int) -> int:
    await asyncio.sleep(0.02)
    return n
"""


async def test_new_code_takes_over_broken_code_does_not_and_what_runs_goes_on(
    deployed: Settings, client: Client, stack: AsyncExitStack, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    app = tmp_path / "reloaded_app.py"
    app.write_text(SOURCE.replace("{version}", "1"))
    pool = await stack.enter_async_context(Pool(deployed, [str(app)], reload=True))
    (first,) = pool.workers
    assert await (await client.start("version")).result(timeout=10) == 1
    long = await client.start("version", {"wait": 10.0})

    words = bytearray()

    def is_told() -> bool:
        words.extend(capfdbinary.readouterr().err)  # each look takes what it sees
        return b"SyntaxError" in words

    app.write_text("def broken(:\n")
    await eventually(is_told, within=30)
    assert list(pool.workers) == [first]
    assert await (await client.start("version")).result(timeout=20) == 1

    app.write_text(SOURCE.replace("{version}", "2"))
    await eventually(lambda: list(pool.workers) not in ([first], []), within=30)
    assert await (await client.start("version")).result(timeout=20) == 2
    assert await long.result(timeout=60) == 2
    assert (await long.get()).restarts == 0
