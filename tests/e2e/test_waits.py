"""Sleeps and signals, in memory and out of it, under pause, resume and cancel."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runtara.protocol.errors import IllegalTransition, UnknownWorkflow, WorkflowCancelled, WorkflowTimeout
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.polling import eventually

from .test_slice import trace

pytestmark = pytest.mark.timeout(60)


async def types(handle: Handle[Any]) -> Counter[str]:
    return Counter([event.type async for event in handle.history()])


async def until(handle: Handle[Any], *statuses: Status) -> None:
    async def is_so() -> bool:
        return (await handle.get()).status in statuses

    await eventually(is_so, within=20, what=f"{handle.id} being {statuses}")


async def test_a_sleeping_workflow_leaves_its_worker_and_is_woken_in_time(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    began = time.time()
    handle = await client.start("naps", {"folder": str(tmp_path), "seconds": 0.5, "times": 2})
    await until(handle, Status.SLEEPING)
    view = await handle.get()
    assert view.worker is None
    assert view.wake_at is not None
    assert abs(view.wake_at / 1e6 - began - 0.5) < 0.4
    assert await handle.result(timeout=20) == 6
    assert time.time() - began >= 1.0
    assert trace(tmp_path) == [0, 1, 2, 3]  # nothing ran twice
    seen = await types(handle)
    assert (seen["SleepStarted"], seen["InstanceSuspended"], seen["AttemptStarted"]) == (2, 2, 3)
    assert (await handle.get()).restarts == 0


async def test_a_short_sleep_is_slept_in_memory(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("dozes", {"folder": str(tmp_path), "seconds": 0.3})
    assert await handle.result(timeout=20) == 1
    seen = await types(handle)
    assert (seen["SleepStarted"], seen["AttemptStarted"]) == (1, 1)


async def test_a_worker_hosts_more_sleepers_than_it_has_slots(client: Client, pool: Pool, tmp_path: Path) -> None:
    count = 250  # of 100 slots
    handles = [await client.start("dozes", {"folder": str(tmp_path), "seconds": 3}) for _ in range(count)]
    await asyncio.gather(*(handle.result(timeout=40) for handle in handles))
    slept = {event.at async for event in handles[0].history() if event.type == "SleepStarted"}
    last = {event.at async for event in handles[-1].history() if event.type == "SleepStarted"}
    assert max(last) - min(slept) < 2_500_000  # the last one began before the first one ended


async def test_a_signal_wakes_a_workflow_that_has_left(client: Client, pool: Pool) -> None:
    handle = await client.start("collect", {"count": 1})
    await until(handle, Status.WAITING)
    assert (await handle.get()).worker is None
    await handle.signal("item", {"n": 1})
    assert await handle.result(timeout=20) == [{"n": 1}]


async def test_a_signal_reaches_a_workflow_that_waits_in_memory(client: Client, pool: Pool) -> None:
    handle = await client.start("collect_in_memory", {"count": 2})
    await eventually_waiting(handle, 1)
    await handle.signal("item", 1)
    await eventually_waiting(handle, 2)
    await handle.signal("item", 2)
    assert await handle.result(timeout=20) == [1, 2]
    assert (await types(handle))["AttemptStarted"] == 1


async def eventually_waiting(handle: Handle[Any], waits: int) -> None:
    async def waiting() -> bool:
        return (await types(handle))["WaitStarted"] == waits

    await eventually(waiting)


async def test_signals_that_come_before_anybody_waits_are_kept_in_order(
    client: Client, make_pool: Callable[..., Pool]
) -> None:
    async with make_pool():
        pass  # the workflows are registered, and nobody hosts them any more
    handle = await client.start("collect", {"count": 5})
    for n in range(5):
        await handle.signal("item", n)
    async with make_pool():
        assert await handle.result(timeout=20) == [0, 1, 2, 3, 4]


async def test_an_approval_that_nobody_gives_times_out(client: Client, pool: Pool) -> None:
    handle = await client.start("approval", {"seconds": 0.5})
    await until(handle, Status.WAITING)
    assert await handle.result(timeout=20) == "nobody"
    given = await client.start("approval", {"seconds": 60})
    await until(given, Status.WAITING)
    await given.signal("approved", "ann")
    assert await given.result(timeout=20) == "ann"


async def test_the_time_out_of_a_workflow_counts_while_it_has_left(client: Client, pool: Pool) -> None:
    handle = await client.start("waits_too_long", {})
    await until(handle, Status.WAITING)
    with pytest.raises(WorkflowTimeout, match="within 1 s"):
        await handle.result(timeout=20)


async def test_a_suspended_workflow_is_cancelled_at_once_without_being_woken(client: Client, pool: Pool) -> None:
    handle = await client.start("collect", {"count": 1})
    await until(handle, Status.WAITING)
    assert await handle.cancel(reason="enough") is Status.CANCELLED
    with pytest.raises(WorkflowCancelled, match="enough"):
        await handle.result(timeout=20)
    assert (await types(handle))["AttemptStarted"] == 1


@pytest.mark.parametrize("workflow", ["collect", "collect_in_memory"])
async def test_a_signal_to_a_paused_workflow_waits_until_it_is_resumed(
    client: Client, pool: Pool, workflow: str
) -> None:
    handle = await client.start(workflow, {"count": 2})
    await eventually_waiting(handle, 1)
    await handle.pause()
    await until(handle, Status.PAUSED)
    await handle.signal("item", "a")
    await handle.signal("item", "b")
    assert (await handle.get()).status is Status.PAUSED
    await handle.resume()
    assert await handle.result(timeout=20) == ["a", "b"]


async def test_a_paused_sleep_goes_on_to_its_first_deadline_when_resumed(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("naps", {"folder": str(tmp_path), "seconds": 1.5})
    await until(handle, Status.SLEEPING)
    wake_at = (await handle.get()).wake_at
    await handle.pause()
    await until(handle, Status.PAUSED)
    await handle.resume()
    assert (await handle.get()).status is Status.SLEEPING
    assert (await handle.get()).wake_at == wake_at
    assert await handle.result(timeout=20) == 1
    assert (await types(handle))["AttemptStarted"] == 2


async def test_a_sleep_that_ended_while_paused_is_over_when_resumed(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("naps", {"folder": str(tmp_path), "seconds": 0.5})
    await until(handle, Status.SLEEPING)
    await handle.pause()

    async def slept() -> bool:
        return (await types(handle))["WaitResolved"] == 1

    await eventually(slept)
    assert (await handle.get()).status is Status.PAUSED
    await handle.resume()
    assert await handle.result(timeout=20) == 1


async def test_a_wait_beside_work_stays_in_memory_until_the_work_is_done(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    handle = await client.start("waits_and_works", {"folder": str(tmp_path), "steps": 20})
    await until(handle, Status.WAITING)
    assert trace(tmp_path) == list(range(20))
    await handle.signal("go", "now")
    assert await handle.result(timeout=20) == "now"
    assert trace(tmp_path) == list(range(20))


async def test_a_deploy_leaves_sleepers_asleep(client: Client, make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    async with make_pool():
        handle = await client.start("dozes", {"folder": str(tmp_path), "seconds": 2})

        async def sleeps() -> bool:
            return (await types(handle))["SleepStarted"] == 1

        await eventually(sleeps)
    assert (await handle.get()).status is Status.SLEEPING
    async with make_pool():
        assert await handle.result(timeout=20) == 1
    assert datetime.now(UTC).timestamp() * 1e6 >= ((await handle.get()).created_at + 2_000_000)
    assert trace(tmp_path) == [0, 1]


async def test_start_or_signal_starts_once_and_signals_each_time(client: Client, pool: Pool) -> None:
    handles = [
        await client.start_or_signal("collect", {"count": 3, "name": "item"}, id="cart", signal="item", data=n)
        for n in range(2)
    ]
    # another input does not matter to one that exists
    handles.append(await client.start_or_signal("collect", {"count": 1}, id="cart", signal="item", data=2))
    assert [await handle.result(timeout=20) for handle in handles] == [[0, 1, 2]] * 3
    with pytest.raises(IllegalTransition, match="completed"):
        await client.start_or_signal("collect", {"count": 1}, id="cart", signal="item")
    with pytest.raises(UnknownWorkflow):
        await client.start_or_signal("collekt", {"count": 1}, id="other", signal="item")
