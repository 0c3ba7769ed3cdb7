"""Processes: forked from a warm parent, bounded by rlimits."""

import os
import signal
from typing import Any

import psutil
import pytest

from runtara.protocol.errors import WorkflowFailed
from runtara.runner.forks import Limits
from runtara.runner.kinds import process_runner
from runtara.runner.supervisor import WorkersFailed
from runtara.sdk.client import Client
from tests.launching.conftest import FLOWS, Processes, events_of, until_recorded
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(90)
MIB = 1024 * 1024


def warm_parent() -> psutil.Process:
    (found,) = [one for one in psutil.Process().children() if "runtara.runner.warm" in one.cmdline()]
    return found


async def test_a_killed_process_is_resumed_behind_its_last_key(processes: Processes, client: Client) -> None:
    await processes.runner()
    handle = await client.start("count", {"steps": 40, "pause": 0.05})
    await until_recorded(client, handle, "step-5")
    (child,) = warm_parent().children()
    child.kill()
    lives = await handle.result(timeout=30)
    assert len(set(lives)) == 2
    (lost,) = await events_of(client, handle.id, "AttemptLost")
    assert b"exited: the process was ended by SIGKILL" in bytes(lost.data)
    assert (await client.get(handle.id)).restarts == 1


async def test_a_warm_parent_that_is_killed_takes_its_children_along_and_is_replaced(
    processes: Processes, client: Client
) -> None:
    await processes.runner()
    handle = await client.start("count", {"steps": 40, "pause": 0.05})
    await until_recorded(client, handle, "step-5")
    parent = warm_parent()
    (child,) = parent.children()
    os.kill(parent.pid, signal.SIGKILL)
    assert len(set(await handle.result(timeout=40))) == 2
    assert not psutil.pid_exists(child.pid)
    (lost,) = await events_of(client, handle.id, "AttemptLost")
    assert b"its parent process ended" in bytes(lost.data)


async def test_memory_beyond_the_limit_is_an_error_of_the_code(processes: Processes, client: Client) -> None:
    await processes.runner(memory=400 * MIB)
    handle = await client.start("hogs")
    with pytest.raises(WorkflowFailed, match="MemoryError"):
        await handle.result(timeout=60)


async def test_what_dies_before_it_has_spoken_uses_the_budget_up(processes: Processes, client: Client) -> None:
    await processes.runner(memory=1 * MIB)
    handle = await client.start("greet", {"name": "ada"})
    with pytest.raises(WorkflowFailed, match="5 attempts"):
        await handle.result(timeout=60)


async def test_processor_time_beyond_the_limit_is_said_so(processes: Processes, client: Client, stack: Any) -> None:
    limits = Limits(cpu_seconds=1)
    await stack.enter_async_context(process_runner(processes.settings, [str(FLOWS)], limits=limits))
    handle = await client.start("burns")
    (lost, *_) = await eventually(lambda: events_of(client, handle.id, "AttemptLost"), within=40)
    assert b"over its limit of processor time" in bytes(lost.data)
    await handle.cancel()


async def test_targets_that_cannot_be_loaded_end_the_runner(processes: Processes) -> None:
    with pytest.raises(WorkersFailed):
        async with process_runner(processes.settings, ["nowhere_at_all.py"]):
            pass


async def test_a_process_sees_nothing_of_the_runners(processes: Processes, client: Client) -> None:
    await processes.runner()
    handle = await client.start("descriptors")
    kinds = await handle.result(timeout=30)
    assert not [one for one in kinds if "nats" in one]
    assert len([one for one in kinds if one.startswith("pipe:")]) <= 4  # its output, and its loop's own
