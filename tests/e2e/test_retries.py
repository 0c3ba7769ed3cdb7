"""Steps that are tried again after a while: out of memory, counted over attempts, with budgets of their own."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtara.protocol.errors import WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle

from .test_waits import until

pytestmark = pytest.mark.timeout(60)


async def tries(handle: Handle[Any]) -> list[tuple[int, bool]]:
    """The failed tries in the log: their numbers, and whether another was to follow."""
    failures = [event async for event in handle.history() if event.type == "StepFailed"]
    data = [msgspec.json.decode(event.data) for event in failures]
    return [(failure["n"], "due_us" in failure) for failure in data]


def good_runs(folder: Path) -> int:
    return len((folder / "good").read_text().split())


async def test_a_step_that_waits_for_its_next_try_holds_no_worker(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("retries", {"folder": str(tmp_path), "times": 2})
    await until(handle, Status.SLEEPING)
    view = await handle.get()
    assert view.worker is None
    assert view.wake_at is not None
    assert await handle.result(timeout=20) == 3
    assert await tries(handle) == [(1, True), (2, True)]
    assert good_runs(tmp_path) == 1
    view = await handle.get()
    assert (view.attempt, view.restarts) == (3, 0)


async def test_a_server_that_asks_for_patience_does_not_use_up_the_tries(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("retries", {"folder": str(tmp_path), "times": 5, "asking": True})
    assert await handle.result(timeout=20) == 6  # of three tries
    assert await tries(handle) == [(n, True) for n in range(1, 6)]


async def test_a_cancel_does_not_wait_for_the_next_try(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("retries", {"folder": str(tmp_path), "times": 2})
    await until(handle, Status.SLEEPING)
    assert await handle.cancel() is Status.CANCELLED
    assert await tries(handle) == [(1, True)]


async def test_a_next_try_that_falls_into_a_pause_is_made_when_it_is_resumed(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("retries", {"folder": str(tmp_path), "times": 1})
    await until(handle, Status.SLEEPING)
    await handle.pause()
    await until(handle, Status.PAUSED)
    await handle.resume()
    assert await handle.result(timeout=20) == 2
    assert await tries(handle) == [(1, True)]


async def test_a_failed_instance_is_retried_from_its_last_good_key_with_all_of_its_tries(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("retries", {"folder": str(tmp_path), "times": 4})
    with pytest.raises(WorkflowFailed, match="failed after 3 attempt"):
        await handle.result(timeout=20)
    await handle.retry()
    assert await handle.result(timeout=20) == 5
    assert await tries(handle) == [(1, True), (2, True), (3, False), (1, True)]
    assert good_runs(tmp_path) == 1


async def test_a_workflow_that_crashes_at_each_next_try_is_failed_and_can_be_repaired(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("crashes_when_it_tries_again", {"folder": str(tmp_path)})
    with pytest.raises(WorkflowFailed, match="2 attempts in a row were lost"):
        await handle.result(timeout=40)
    assert (await handle.get()).restarts == 2
    (tmp_path / "repaired").touch()
    await handle.retry()
    assert await handle.result(timeout=20) == "repaired"
    assert await tries(handle) == [(1, True)]
    assert good_runs(tmp_path) == 1
