"""`examples/anywhere.py` as Jobs: the same result as everywhere else (`tests/launching/test_anywhere.py`)."""

import sys
from pathlib import Path

import pytest

from runtara.protocol.records import Image
from runtara.runner.kinds import kubernetes_runner
from runtara.sdk.discovery import load

from .conftest import Jobs

EXAMPLE = Path(__file__).parents[2] / "examples/anywhere.py"
IMAGE = "registry.example/invoices@sha256:" + "1" * 64

pytestmark = pytest.mark.timeout(120)


async def test_the_example_for_every_runner_runs_as_jobs(jobs: Jobs) -> None:
    jobs.cluster.kubelet.images[IMAGE] = [sys.executable, "-m", "runtara.sdk.run", str(EXAMPLE)]
    registrations = [one.registration(code_version="1", kind="kubernetes") for one in load([str(EXAMPLE)]).workflows]
    await jobs.client.images.register(Image(name="invoices", version=0, reference=IMAGE), registrations)
    async with kubernetes_runner(jobs.settings):
        handle = await jobs.client.start("invoice", {"customer": "ada", "cents": [1990, 250, 250, 4900]})
        assert await handle.result(timeout=60) == {"number": "ada-f21c7e50", "total": 8795}
        await jobs.none_left()
    attempts = [event async for event in jobs.client.history(handle.id) if event.type == "AttemptStarted"]
    assert len({event.attempt for event in attempts}) == 2, "the durable sleep held no Job"
