"""Scripts that speak for an instance of their own."""

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import DuplicateKey, IllegalTransition, SignalTimeout, Stopped, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.sdk.client import Client
from runtara.sdk.instance import Instance
from tests.support.polling import eventually

from .test_slice import trace

pytestmark = pytest.mark.timeout(60)
SCRIPT = str(Path(__file__).with_name("script.py"))


def local(settings: Settings, id: str) -> Instance:
    return Instance.local(id, workflow="batch", settings=settings)


async def run_script(settings: Settings, *arguments: object) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, *map(str, arguments), env={**os.environ, **settings.to_environ()}
    )
    return await process.wait()


async def until_status(client: Client, status: Status) -> None:
    async def reached() -> bool:
        return (await client.get("b-1")).status is status

    await eventually(reached)


async def test_a_script_that_was_killed_goes_on_where_it_was(
    client: Client, deployed: Settings, tmp_path: Path
) -> None:
    assert await run_script(deployed, "b-1", 10, 4, tmp_path / "trace") == -9
    assert await run_script(deployed, "b-1", 10, -1, tmp_path / "trace") == 0
    assert trace(tmp_path) == list(range(10))
    assert await client.handle("b-1").result(timeout=10) == {"count": 10}
    view = await client.get("b-1")
    assert (view.workflow, view.status, view.attempt) == ("batch", Status.COMPLETED, 2)
    assert await run_script(deployed, "b-1", 10, -1, tmp_path / "trace") == 1


async def test_an_ended_instance_cannot_be_registered_again(client: Client, deployed: Settings) -> None:
    instance = local(deployed, "b-1")
    await instance.register()
    await instance.failed("out of paper")
    with pytest.raises(WorkflowFailed, match="out of paper"):
        await client.handle("b-1").result(timeout=10)
    with pytest.raises(IllegalTransition, match="it is failed"):
        await local(deployed, "b-1").register()
    with pytest.raises(Stopped):
        await instance.checkpoint("late", 1)


async def test_of_two_scripts_at_once_the_later_one_wins(client: Client, deployed: Settings) -> None:
    async with local(deployed, "b-1") as first, local(deployed, "b-1") as second:
        await first.register()
        await first.checkpoint("a", 1)
        await second.register()
        assert (await second.checkpoint("a", 2)).existing
        assert not (await second.checkpoint("b", 2)).existing
        with pytest.raises(Stopped):
            await first.checkpoint("b", 1)
        await second.completed("second")
    assert await client.handle("b-1").result(timeout=10) == "second"


async def test_a_pause_is_seen_and_obeyed_and_the_script_started_again_goes_on(
    client: Client, deployed: Settings
) -> None:
    instance = local(deployed, "b-1")
    await instance.register()
    saved = await instance.checkpoint("a", 1)
    assert (saved.should_pause, saved.should_cancel) == (False, False)
    await client.pause("b-1")
    await eventually(lambda: instance.should_pause)
    assert (await instance.checkpoint("b", 1)).should_pause
    with pytest.raises(DuplicateKey):
        await instance.checkpoint("b", 1)
    await instance.suspended()
    await until_status(client, Status.PAUSED)
    await client.resume("b-1")
    async with local(deployed, "b-1") as again:
        await again.register()
        assert (await again.checkpoint("b", 2)).state == 1
        await again.emit("note", {"x": 1})
        await client.cancel("b-1")
        await eventually(lambda: again.should_cancel)
        await again.cancelled("as told")
    await until_status(client, Status.CANCELLED)


async def test_a_script_sleeps_once_however_often_it_is_started(client: Client, deployed: Settings) -> None:
    first = local(deployed, "b-1")
    await first.register()
    sleeping = asyncio.create_task(first.durable_sleep("nap", timedelta(seconds=0.8)))
    await eventually_recorded(client, "SleepStarted")
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)  # gives it up
    await first.close()
    async with local(deployed, "b-1") as second:
        await second.register()
        began = time.monotonic()
        slept = await second.durable_sleep("nap", timedelta(seconds=0.3))
        assert (slept.existing, slept.should_pause, slept.should_cancel) == (False, False, False)
        assert time.monotonic() - began >= 0.29
        assert not (await second.durable_sleep(timedelta(0))).existing
    async with local(deployed, "b-1") as third:
        await third.register()
        assert (await third.durable_sleep("nap", timedelta(days=1))).existing
        await third.completed()


async def test_a_sleep_ends_early_when_a_pause_is_asked_for_and_goes_on_in_the_next_run(
    client: Client, deployed: Settings
) -> None:
    async with local(deployed, "b-1") as first:
        await first.register()
        sleeping = asyncio.create_task(first.durable_sleep("nap", timedelta(seconds=3)))
        await eventually_recorded(client, "SleepStarted")
        await client.pause("b-1")
        left = await asyncio.wait_for(sleeping, 2)
        assert (left.ended_early, left.should_pause, left.should_cancel, left.existing) == (True, True, False, False)
        await first.suspended()
    await until_status(client, Status.PAUSED)
    await client.resume("b-1")
    async with local(deployed, "b-1") as second:
        await second.register()
        slept = await second.durable_sleep("nap", timedelta(days=1))  # its deadline has not moved
        assert (slept.ended_early, slept.should_pause) == (False, False)
        await second.completed()
    types = [event.type async for event in client.history("b-1")]
    assert (types.count("SleepStarted"), types.count("WaitResolved"), types.count("WaitAbandoned")) == (1, 1, 0)


async def test_a_wait_ends_early_once_for_each_thing_that_is_asked_for_and_loses_no_signal(
    client: Client, deployed: Settings
) -> None:
    async with local(deployed, "b-1") as instance:
        await instance.register()
        waiting = asyncio.create_task(instance.wait_signal("go", key="go"))
        await eventually_recorded(client, "WaitStarted")
        await client.pause("b-1")
        assert (await asyncio.wait_for(waiting, 5)).should_pause
        again = asyncio.create_task(instance.wait_signal("go", key="go"))  # it does not care for pauses
        await client.resume("b-1")
        await eventually(lambda: not instance.should_pause)
        assert not again.done()
        await client.pause("b-1")
        assert (await asyncio.wait_for(again, 5)).ended_early
        await client.resume("b-1")
        await eventually(lambda: not instance.should_pause)
        await client.signal("b-1", "go", 7)
        got = await asyncio.wait_for(instance.wait_signal("go", key="go"), 5)
        assert (got.state, got.ended_early, got.existing) == (7, False, False)
        sleeping = asyncio.create_task(instance.durable_sleep(timedelta(hours=1)))
        await eventually_recorded(client, "SleepStarted")
        await client.cancel("b-1")
        left = await asyncio.wait_for(sleeping, 5)
        assert (left.should_cancel, left.ended_early) == (True, True)
        await instance.cancelled("as told")
    await until_status(client, Status.CANCELLED)
    types = [event.type async for event in client.history("b-1")]
    assert (types.count("WaitStarted"), types.count("SleepStarted"), types.count("WaitAbandoned")) == (1, 1, 0)


async def eventually_recorded(client: Client, type: str) -> None:
    async def is_there() -> bool:
        return type in [event.type async for event in client.history("b-1")]

    await eventually(is_there)


async def test_a_script_that_was_killed_in_its_sleep_goes_on_to_the_same_deadline(
    client: Client, deployed: Settings
) -> None:
    first = local(deployed, "b-1")
    await first.register()
    sleeping = asyncio.create_task(first.durable_sleep("nap", timedelta(seconds=1)))
    await eventually_recorded(client, "SleepStarted")
    await first.close()  # as a kill would
    with pytest.raises(Stopped):
        await sleeping
    async with local(deployed, "b-1") as second:
        await second.register()
        async with asyncio.timeout(30):
            await second.durable_sleep("nap", timedelta(days=1))
        await second.completed()
    types = [event.type async for event in client.history("b-1")]
    assert types.count("SleepStarted") == 1


async def test_a_script_waits_for_signals_that_came_and_that_come(client: Client, deployed: Settings) -> None:
    async with local(deployed, "b-1") as instance:
        await instance.register()
        await client.signal("b-1", "go", 1)
        assert (await instance.wait_signal("go")).state == 1
        waiting = asyncio.create_task(instance.wait_signal("go", timeout=timedelta(minutes=1)))
        await asyncio.sleep(0)
        await client.signal("b-1", "go", 2)
        assert (await waiting).state == 2
        with pytest.raises(SignalTimeout):
            await instance.wait_signal("go", timeout=timedelta(seconds=0.05), key="late")
    async with local(deployed, "b-1") as again:
        await again.register()
        answers = [await again.wait_signal("go"), await again.wait_signal("go")]
        assert [(answer.existing, answer.state) for answer in answers] == [(True, 1), (True, 2)]
        with pytest.raises(SignalTimeout):
            await again.wait_signal("go", key="late")
        await again.completed()


async def test_a_script_whose_instance_was_taken_over_wakes_from_its_wait(client: Client, deployed: Settings) -> None:
    first = local(deployed, "b-1")
    await first.register()
    waiting = asyncio.create_task(first.wait_signal("never"))
    await eventually_recorded(client, "WaitStarted")
    async with local(deployed, "b-1") as second:
        await second.register()
        with pytest.raises(Stopped):
            await asyncio.wait_for(waiting, 10)
    await first.close()
