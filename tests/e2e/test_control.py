"""Commands reach what runs, and what does not run."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from runtara.protocol.errors import IllegalTransition, WorkflowCancelled
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from runtara.sdk.worker import STALL_SECONDS
from tests.support.polling import eventually

from .test_slice import trace

pytestmark = pytest.mark.timeout(60)


async def test_a_running_workflow_pauses_between_steps_and_goes_on(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 30, "pause": 0.02})
    await eventually(lambda: len(trace(tmp_path)) >= 5)
    await handle.pause(reason="lunch")

    async def is_paused() -> bool:
        return (await handle.get()).status is Status.PAUSED

    await eventually(is_paused)
    assert len(trace(tmp_path)) < 30
    await handle.resume()
    assert await handle.result(timeout=20) == sum(range(30))
    assert trace(tmp_path) == list(range(30))
    assert (await handle.get()).restarts == 0


async def test_a_running_workflow_is_cancelled(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 10_000, "pause": 0.01})
    await eventually(lambda: len(trace(tmp_path)) >= 3)
    await handle.cancel(reason="enough")
    with pytest.raises(WorkflowCancelled, match="enough"):
        await handle.result(timeout=20)
    with pytest.raises(IllegalTransition):
        await handle.pause()


async def test_a_queued_workflow_is_cancelled_without_ever_running(
    client: Client, make_pool: Callable[..., Pool], tmp_path: Path
) -> None:
    async with make_pool():
        pass  # the workflows are registered, and nobody hosts them any more
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 3})
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=20)
    async with make_pool():
        other = await client.start("greet", {"name": "ada"})
        assert await other.result(timeout=20) == "hello ADA"
    assert trace(tmp_path) == []


async def test_a_worker_that_stood_still_starts_nothing_before_it_has_the_claim(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    (child,) = pool.children
    os.kill(child.pid, signal.SIGSTOP)
    try:
        handle = await client.start("count", {"folder": str(tmp_path), "steps": 3})
        await handle.cancel()
        await asyncio.sleep(STALL_SECONDS + 0.3)  # its request is in the stopped worker's hands meanwhile
    finally:
        os.kill(child.pid, signal.SIGCONT)
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=20)
    other = await client.start("greet", {"name": "ada"})
    assert await other.result(timeout=20) == "hello ADA"
    assert trace(tmp_path) == []


async def test_a_failed_workflow_is_retried(client: Client, pool: Pool) -> None:
    handle = await client.start("fail", {"why": "once"})
    with pytest.raises(Exception, match="once"):
        await handle.result(timeout=10)
    await handle.retry()
    with pytest.raises(Exception, match="once"):
        await handle.result(timeout=10)
    assert (await handle.get()).attempt == 2


async def test_a_worker_that_stands_still_longer_than_its_lease_is_superseded(
    client: Client, pool: Pool, make_pool: Callable[..., Pool], tmp_path: Path
) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 400, "pause": 0.01})
    await eventually(lambda: len(trace(tmp_path)) >= 5)
    (stopped,) = pool.children
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        async with make_pool():
            await eventually(lambda: len(set(trace(tmp_path))) >= 100, within=30)
            os.kill(stopped.pid, signal.SIGCONT)
            assert await handle.result(timeout=30) == sum(range(400))
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    view = await handle.get()
    assert (view.attempt, view.restarts) == (2, 1)
    keys = [event.key async for event in handle.history() if event.type == "CheckpointSaved"]
    assert len(keys) == len(set(keys)) == 400


async def test_two_workers_share_the_work(client: Client, pool: Pool, make_pool: Callable[..., Pool]) -> None:
    async with make_pool():
        handles = [await client.start("greet", {"name": f"n{n}"}) for n in range(100)]
        await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
        workers = set()
        for handle in handles:
            started = [event async for event in handle.history() if event.type == "AttemptStarted"]
            workers |= {msgspec.json.decode(event.data)["worker"] for event in started}
    assert len(workers) == 2
