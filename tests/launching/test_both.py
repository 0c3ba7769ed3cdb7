"""What a runner promises, whatever it launches."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from runtara.protocol.errors import WorkflowFailed
from runtara.protocol.messages import Status
from runtara.sdk.client import Client
from tests.launching.conftest import events_of, types_of, until_recorded
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(120)


async def test_a_start_runs_in_a_process_of_its_own_and_its_result_comes_back(seat: Any, client: Client) -> None:
    await seat.runner()
    handle = await client.start("greet", {"name": "ada"})
    assert await handle.result(timeout=30) == "hello ADA"
    assert (await types_of(client, handle.id))[:6] == [
        "InstanceCreated", "InstanceQueued", "AttemptStarted", "AttemptStarted", "CheckpointSaved", "InstanceCompleted",
    ]  # fmt: skip
    view = await client.get(handle.id)
    assert (view.attempt, view.restarts) == (1, 0)


async def test_long_values_pass_with_the_rights_of_one_instance_alone(seat: Any, client: Client) -> None:
    await seat.runner()
    value = "x" * 1_500_000
    handle = await client.start("keep", {"value": value})
    await eventually(lambda: client_status(client, handle.id, Status.WAITING), within=30)
    await handle.signal("go")
    assert await handle.result(timeout=30) == value + "!"
    assert (await client.get(handle.id)).restarts == 0
    assert len(await events_of(client, handle.id, "CheckpointSaved")) == 1


async def test_what_is_launched_opens_the_connections_that_its_workflow_names(seat: Any, client: Client) -> None:
    """With the credential of one instance, under the claim that it has taken over from its runner."""
    await client.connections.set("crm", "http_bearer", {"token": "0123456789"})
    await seat.runner()
    handle = await client.start("opens")
    assert await handle.result(timeout=30) == 10
    assert "0123456789" not in str([bytes(event.data) async for event in client.history(handle.id)])


async def test_the_workflow_of_a_kind_is_shown_with_the_runner_that_hosts_it(seat: Any, client: Client) -> None:
    runner = await seat.runner()

    async def shown() -> bool:
        found = [one for one in await client.workflows() if one.id == "greet"]
        return any(greet.kind == seat.kind and runner.id in greet.workers for greet in found)

    await eventually(shown, what="the workflow with its runner")


async def test_a_long_sleep_leaves_no_process_behind_and_a_wake_launches_another(seat: Any, client: Client) -> None:
    runner = await seat.runner()
    handle = await client.start("nap", {"seconds": 4})
    await eventually(lambda: client_status(client, handle.id, Status.SLEEPING), within=30)
    await eventually(lambda: not runner.jobs, within=20, what="jobs of the runner")
    before, after = await handle.result(timeout=40)
    assert before != after
    view = await client.get(handle.id)
    assert (view.attempt, view.restarts) == (2, 0)


async def client_status(client: Client, instance: str, status: Status) -> bool:
    return (await client.get(instance)).status is status


async def test_an_error_of_the_workflow_is_its_outcome_and_no_restart(seat: Any, client: Client) -> None:
    await seat.runner()
    handle = await client.start("fails")
    with pytest.raises(WorkflowFailed, match="no luck"):
        await handle.result(timeout=30)
    assert (await client.get(handle.id)).restarts == 0


async def test_exiting_well_without_an_end_is_a_lost_attempt(seat: Any, client: Client) -> None:
    await seat.runner()
    handle = await client.start("leaves", {"code": 0})
    with pytest.raises(WorkflowFailed, match=r"5 attempts .* exited with code 0\n.*so long"):
        await handle.result(timeout=60)
    assert len(await events_of(client, handle.id, "AttemptLost")) == 5


async def test_over_its_time_it_is_ended_with_that_as_the_reason(seat: Any, client: Client) -> None:
    await seat.runner(timeout=2.0)
    handle = await client.start("count", {"steps": 1_000, "pause": 0.1})
    lost = await eventually(lambda: events_of(client, handle.id, "AttemptLost"), within=40)
    assert "over its wall-clock limit of 2 s" in bytes(lost[0].data).decode()
    await until_recorded(client, handle, "step-30", within=90)  # what is lost is the attempt, not what it has recorded
    await handle.cancel()


async def test_code_that_hears_nothing_is_killed_when_its_time_is_over(seat: Any, client: Client) -> None:
    await seat.runner(timeout=2.0, drain_seconds=0.5)
    handle = await client.start("deaf")
    lost = await eventually(lambda: events_of(client, handle.id, "AttemptLost"), within=60)
    assert "over its wall-clock limit" in bytes(lost[0].data).decode()
    await handle.cancel()


async def test_a_flood_of_output_does_not_block_it(seat: Any, client: Client) -> None:
    await seat.runner()
    handle = await client.start("floods", {"lines": 20_000})
    assert await handle.result(timeout=60) == "done"


async def test_what_never_obeys_a_cancel_is_ended(seat: Any, client: Client) -> None:
    runner = await seat.runner(drain_seconds=0.5)
    handle = await client.start("spins")
    await until_recorded(client, handle, "first")
    await handle.cancel()
    await eventually(lambda: client_status(client, handle.id, Status.CANCELLED), within=40)
    await eventually(lambda: not runner.jobs, within=30, what="jobs of the runner")


async def test_what_was_used_is_in_the_log_though_the_attempt_ended_well(seat: Any, client: Client) -> None:
    await seat.runner()
    handle = await client.start("count", {"steps": 10, "pause": 0.2})
    await handle.result(timeout=30)
    (used,) = await eventually(lambda: events_of(client, handle.id, "ResourcesUsed"), within=20)
    data = msgspec.json.decode(used.data)
    assert data["attempt"] == 1
    assert data["memory_bytes"] > 5_000_000
    assert data["cpu_us"] > 10_000


async def test_no_more_run_at_once_than_there_are_slots(seat: Any, client: Client) -> None:
    runner = await seat.runner(slots=2)
    handles = [await client.start("count", {"steps": 3, "pause": 0.1}) for _ in range(5)]
    seen = 0
    while not all([(await client.get(handle.id)).status is Status.COMPLETED for handle in handles]):
        seen = max(seen, len(runner.jobs))
        await asyncio.sleep(0.02)
    assert seen == 2


async def test_a_runner_that_is_asked_to_stop_hands_over(
    seat: Any, client: Client, runner_process: Callable[[Any], Awaitable[asyncio.subprocess.Process]]
) -> None:
    if seat.kind == "docker":
        await seat.register()
    first = await runner_process(seat)
    handle = await client.start("count", {"steps": 200, "pause": 0.05})
    await until_recorded(client, handle, "step-2")
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), 30) == 0
    view = await client.get(handle.id)
    assert (view.status, view.restarts) == (Status.QUEUED, 0)
    await runner_process(seat)
    lives = await handle.result(timeout=60)
    assert len(set(lives)) == 2
    assert os.getpid() != first.pid
