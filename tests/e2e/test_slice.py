"""The thinnest slice: client, journal, engine, log, run queue, worker, and back."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from runtara.protocol.errors import InstanceNotFound, StartConflict, UnknownWorkflow, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(60)


def trace(folder: Path) -> list[int]:
    file = folder / "trace"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


async def test_a_workflow_runs_and_its_result_comes_back(client: Client, pool: Pool) -> None:
    handle = await client.start("greet", {"name": "ada"}, id="g-1")
    assert await handle.result(timeout=10) == "hello ADA"
    view = await handle.get()
    assert (view.status, view.attempt, view.restarts) == (Status.COMPLETED, 1, 0)
    assert [event.type async for event in client.history("g-1")] == [
        "InstanceCreated", "InstanceQueued", "AttemptStarted", "CheckpointSaved", "InstanceCompleted",
    ]  # fmt: skip


async def test_many_workflows_run_at_once(client: Client, pool: Pool) -> None:
    async def run(n: int) -> str:
        handle = await client.start("greet", {"name": f"n{n}"})
        result: str = await handle.result(timeout=30)
        return result

    assert await asyncio.gather(*(run(n) for n in range(200))) == [f"hello N{n}" for n in range(200)]


async def test_a_workflow_resumes_behind_its_last_step_when_its_worker_is_killed(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 60, "pause": 0.02})
    await eventually(lambda: len(trace(tmp_path)) >= 20)
    (child,) = pool.children
    os.kill(child.pid, signal.SIGKILL)
    assert await handle.result(timeout=30) == sum(range(60))
    ran = trace(tmp_path)
    assert sorted(set(ran)) == list(range(60))
    assert len(ran) <= 61  # the step in flight may have run twice
    view = await handle.get()
    assert (view.attempt, view.restarts) == (2, 1)


async def test_idempotency_keys_stay_over_a_retry_and_change_with_continue_as(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("rounds", {"folder": str(tmp_path), "left": 3, "keys": []})
    with pytest.raises(WorkflowFailed, match="not repaired"):
        await handle.result(timeout=20)
    (tmp_path / "repaired").touch()
    await handle.retry()
    keys = await handle.result(timeout=20)
    assert len(set(keys)) == len(keys) == 4
    assert (tmp_path / "keys").read_text().split() == [*keys[:3], keys[2], keys[3]]


async def test_a_checkpoint_guards_what_follows_it(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("guarded", {"folder": str(tmp_path), "steps": 20})
    assert await handle.result(timeout=10) == 20
    assert trace(tmp_path) == list(range(20))


async def test_an_error_of_the_workflow_is_its_outcome(client: Client, pool: Pool) -> None:
    handle = await client.start("fail", {"why": "no luck"})
    with pytest.raises(WorkflowFailed, match="ValueError: no luck"):
        await handle.result(timeout=10)


async def test_a_workflow_that_ends_its_process_every_time_fails_with_its_last_words(
    client: Client, pool: Pool
) -> None:
    handle = await client.start("crash")
    with pytest.raises(WorkflowFailed, match="this is the end"):
        await handle.result(timeout=30)


async def test_the_same_start_again_is_the_same_instance_and_another_is_a_conflict(client: Client, pool: Pool) -> None:
    await client.start("greet", {"name": "ada"}, id="g-1")
    again = await client.start("greet", {"name": "ada"}, id="g-1")
    assert await again.result(timeout=10) == "hello ADA"
    with pytest.raises(StartConflict):
        await client.start("greet", {"name": "bob"}, id="g-1")


async def test_what_nobody_knows_is_said_at_once(client: Client, pool: Pool) -> None:
    with pytest.raises(UnknownWorkflow, match="'greet'"):
        await client.start("greeet")
    with pytest.raises(InstanceNotFound):
        await client.get("nobody")
    with pytest.raises(InstanceNotFound):
        await client.handle("nobody").result(timeout=5)


async def test_a_draining_worker_hands_its_instances_over(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 40, "pause": 0.02})
    await eventually(lambda: len(trace(tmp_path)) >= 5)
    (child,) = pool.children
    os.kill(child.pid, signal.SIGTERM)
    assert await handle.result(timeout=30) == sum(range(40))
    assert trace(tmp_path) == list(range(40))
    assert (await handle.get()).restarts == 0
