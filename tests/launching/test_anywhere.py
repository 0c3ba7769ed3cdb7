"""`examples/anywhere.py` runs unchanged in a worker, in a process, in a container and in a pooled one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runtara.runner.kinds import docker_runner, process_runner
from runtara.sdk.client import Client
from runtara.sdk.discovery import load
from runtara.sdk.worker import Worker
from tests.launching.conftest import Containers
from tests.support import containers
from tests.support.polling import eventually

EXAMPLE = Path(__file__).parents[2] / "examples/anywhere.py"
INPUT: dict[str, Any] = {"customer": "ada", "cents": [1990, 250, 250, 4900]}

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


@asynccontextmanager
async def home(kind: str, boxes: Containers) -> AsyncIterator[None]:
    """Something that runs it. The last one that says so has the workflow from then on."""
    settings = boxes.settings
    match kind:
        case "worker":
            async with Worker(settings, load([str(EXAMPLE)])):
                yield
        case "process":
            async with process_runner(settings, [str(EXAMPLE)]):
                yield
        case _:
            await boxes.register(isolation="pool" if kind == "pooled" else "instance")
            async with docker_runner(settings):
                yield


async def test_the_same_workflow_has_the_same_log_and_result_wherever_it_runs(
    boxes: Containers, client: Client, stack: AsyncExitStack
) -> None:
    example = Containers(boxes.settings, stack, containers.build_image(EXAMPLE), boxes.api, EXAMPLE)
    results, logs = [], []
    for kind in ("worker", "process", "container", "pooled"):
        async with home(kind, example):
            expected = kind if kind == "process" else {"worker": "pool"}.get(kind, "docker")
            await until_of(client, expected)
            handle = await client.start("invoice", INPUT, id=f"by-{kind}")
            results.append(await handle.result(timeout=60))
            logs.append([(event.type, event.key) async for event in client.history(handle.id) if event.key])
    assert results == 4 * [{"number": "ada-f21c7e50", "total": 8795}]
    assert logs == 4 * [logs[0]]
    assert ("WaitResolved", "until the books are open") in logs[0]


async def until_of(client: Client, kind: str) -> None:
    async def is_so() -> bool:
        return [one.kind for one in await client.workflows() if one.id == "invoice"] == [kind]

    await eventually(is_so, within=20, what=f"the kind {kind}")
