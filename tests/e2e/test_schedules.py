"""Schedules through the client: a worker runs what the clock starts."""

import asyncio
from datetime import timedelta

import pytest

from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk import InvalidInput, InvalidSchedule, ScheduleConflict, ScheduleNotFound, sync
from runtara.sdk.client import Client
from tests.support.polling import eventually

from .flows import greet

pytestmark = pytest.mark.timeout(60)


async def test_what_the_clock_starts_runs_as_if_somebody_had_started_it(client: Client, pool: Pool) -> None:
    await client.schedules.create("often", greet, {"name": "Ada"}, every=timedelta(seconds=1))

    async def started() -> str:
        view = await client.schedules.get("often")
        return view.last[0].id if view.last else ""

    id = await eventually(started)
    assert await client.handle(id, greet).result(timeout=20) == "hello ADA"
    (view,) = (await client.list(labels={"schedule": "often"}, limit=1)).instances
    assert view.workflow == "greet"
    await client.schedules.delete("often")
    with pytest.raises(ScheduleNotFound):
        await client.schedules.get("often")


async def test_by_hand_and_by_name(client: Client, pool: Pool) -> None:
    async def is_known() -> bool:
        return [view.id for view in await client.workflows() if view.id == "greet"] == ["greet"]

    await eventually(is_known)
    view = await client.schedules.create("nightly", "greet", {"name": "Bob"}, cron="0 3 * * *", paused=True)
    assert (view.paused, view.schedule.every_us, view.upcoming) == (True, None, [])
    id = await client.schedules.trigger("nightly")
    assert await client.handle(id).result(timeout=20) == "hello BOB"
    assert not (await client.schedules.resume("nightly")).paused
    assert [view.schedule.name for view in (await client.schedules.list(workflow="greet")).schedules] == ["nightly"]


async def test_a_definition_that_is_wrong_is_refused(client: Client, pool: Pool) -> None:
    with pytest.raises(InvalidSchedule, match="either"):
        await client.schedules.create("s", greet, {"name": "Ada"})
    with pytest.raises(InvalidSchedule, match="whole seconds"):
        await client.schedules.create("s", greet, {"name": "Ada"}, every=timedelta(milliseconds=1_500))
    with pytest.raises(InvalidInput):
        await client.schedules.create("s", greet, {"nme": "Ada"}, every=timedelta(hours=1))
    await client.schedules.create("s", greet, {"name": "Ada"}, every=timedelta(hours=1))
    with pytest.raises(ScheduleConflict, match="another input"):
        await client.schedules.create("s", greet, {"name": "Bob"}, every=timedelta(hours=1))


async def test_the_blocking_client_has_them_too(deployed: Settings, client: Client, pool: Pool) -> None:
    def use() -> str:
        with sync.Client.connect(deployed, actor="alice") as blocking:
            schedules = blocking.schedules
            view = schedules.create("s", greet, {"name": "Ada"}, cron="0 3 * * *", timezone="Europe/Zurich")
            assert (view.created_by, len(view.upcoming)) == ("alice", 5)
            assert schedules.pause("s").paused
            id = schedules.trigger("s")
            assert [found.schedule.name for found in schedules.list(paused=True).schedules] == ["s"]
            schedules.delete("s")
            return blocking.handle(id, greet).result(timeout=20)

    assert await asyncio.to_thread(use) == "hello ADA"
