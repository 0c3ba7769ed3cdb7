"""`examples/api_calls.py` on a platform, against its own rate-limited server, with a worker killed in the middle."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.polling import eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "api_calls.py"
CALLS = 300

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def prices() -> AsyncIterator[str]:
    """The address of the example's server, which allows 100 calls a second."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE, "--port", "0", "--rate", "100", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    yield (await process.stdout.readline()).split()[0].decode()
    process.terminate()
    await process.wait()


async def test_a_killed_batch_of_calls_has_one_result_for_each(
    client: Client, engine: Engine, deployed: Settings, stack: AsyncExitStack, prices: str
) -> None:
    pool = await stack.enter_async_context(Pool(deployed, [str(EXAMPLE)]))
    handle = await client.start("api-calls", {"url": prices, "count": CALLS, "at_once": 20})

    async def recorded() -> Counter[str | None]:
        return Counter([event.key async for event in handle.history() if event.type == "CheckpointSaved"])

    async def is_in_the_middle() -> bool:
        return len(await recorded()) >= CALLS // 3

    await eventually(is_in_the_middle)
    (child,) = pool.children
    os.kill(child.pid, signal.SIGKILL)

    assert await handle.result(timeout=60) == {"calls": CALLS, "total": sum(2 * item for item in range(CALLS))}
    assert await recorded() == {f"fetch/{item}": 1 for item in range(CALLS)}
    assert (await handle.get()).restarts == 1

    refusals = [event async for event in handle.history() if event.type == "StepFailed"]
    assert any(b"429 for item" in bytes(event.data) for event in refusals)
    assert any(b"503 for item" in bytes(event.data) for event in refusals)
