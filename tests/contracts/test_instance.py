"""What a script may rely on, on the real platform and in memory: the same answers, the same events."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import (
    DuplicateKey,
    IllegalTransition,
    SignalTimeout,
    Stopped,
    WorkflowCancelled,
    WorkflowFailed,
)
from runtara.protocol.messages import Status
from runtara.sdk.client import Client
from runtara.sdk.instance import Instance
from runtara.sdk.testing import MemoryPlatform
from tests.support.platform import deploy, running
from tests.support.polling import eventually

pytestmark = pytest.mark.timeout(60)


class Place:
    """A platform: a client of it, and the script `b-1`, started as often as it is called."""

    def __init__(self, client: Client, script: Callable[[], Instance]) -> None:
        self.client = client
        self.script = script

    async def until(self, status: Status) -> None:
        async def reached() -> bool:
            return (await self.client.get("b-1")).status is status

        await eventually(reached)

    async def recorded(self, type: str) -> None:
        async def is_there() -> bool:
            return type in await self.types()

        await eventually(is_there)

    async def types(self) -> list[str]:
        return [event.type async for event in self.client.history("b-1")]


@pytest.fixture(params=["memory", "real"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        async with MemoryPlatform() as platform:
            yield Place(platform, lambda: platform.instance("b-1", workflow="batch"))
        return
    settings: Settings = request.getfixturevalue("settings")
    await deploy(settings)
    async with running(settings), Client(settings) as client:
        yield Place(client, lambda: Instance.local("b-1", workflow="batch", settings=settings))


async def test_long_values_of_a_script_are_read_again_when_it_is_started_again(place: Place) -> None:
    long = "x" * 200_000
    async with place.script() as first:
        await first.register({"value": long})
        await first.checkpoint("a", long)
        await first.emit("note", {"x": long})
    await place.client.signal("b-1", "go", long)
    async with place.script() as second:
        await second.register()
        assert (await second.checkpoint("a", "another")).state == long
        assert (await second.wait_signal("go")).state == long
        await second.completed(long)
    assert await place.client.handle("b-1").result(timeout=20) == long
    assert max([len(event.data) async for event in place.client.history("b-1")]) < 1_000


async def test_a_script_started_again_goes_on_where_it_was(place: Place) -> None:
    async with place.script() as first:
        await first.register({"count": 2}, labels={"team": "a"})
        assert not (await first.checkpoint("a", {"n": 1})).existing
        await first.emit("note", {"x": 1})
        with pytest.raises(DuplicateKey):
            await first.checkpoint("a", 1)
    async with place.script() as second:
        await second.register()
        found = await second.checkpoint("a", {"n": 2})
        assert (found.existing, found.state) == (True, {"n": 1})
        await second.emit("note", {"x": 1})
        assert not (await second.checkpoint("b", 2)).existing
        await second.completed({"done": True})
    assert await place.client.handle("b-1").result(timeout=10) == {"done": True}
    view = await place.client.get("b-1")
    assert (view.workflow, view.status, view.attempt, view.labels) == ("batch", Status.COMPLETED, 2, {"team": "a"})
    with pytest.raises(IllegalTransition, match="it is completed"):
        await place.script().register()
    types = await place.types()
    assert (types.count("CheckpointSaved"), types.count("CustomEvent"), types.count("AttemptStarted")) == (2, 1, 2)


async def test_a_failure_and_a_cancel_are_the_ends_that_they_are(place: Place) -> None:
    first = place.script()
    await first.register()
    await first.failed("out of paper")
    with pytest.raises(WorkflowFailed, match="out of paper"):
        await place.client.handle("b-1").result(timeout=10)
    with pytest.raises(Stopped):
        await first.checkpoint("late", 1)
    await place.client.retry("b-1")
    second = place.script()
    await second.register()
    await place.client.cancel("b-1", reason="enough")
    await eventually(lambda: second.should_cancel)
    await second.cancelled("as told")
    with pytest.raises(WorkflowCancelled):
        await place.client.handle("b-1").result(timeout=10)


async def test_of_two_scripts_at_once_the_later_one_wins(place: Place) -> None:
    async with place.script() as first, place.script() as second:
        await first.register()
        await first.checkpoint("a", 1)
        await second.register()
        with pytest.raises(Stopped):
            await first.checkpoint("b", 1)
        assert (await second.checkpoint("a", 2)).existing
        await second.completed("second")
    assert await place.client.handle("b-1").result(timeout=10) == "second"


async def test_waits_have_their_outcomes_once(place: Place) -> None:
    async with place.script() as first:
        await first.register()
        await place.client.signal("b-1", "go", 1)
        assert (await first.wait_signal("go")).state == 1
        with pytest.raises(SignalTimeout):
            await first.wait_signal("go", timeout=timedelta(milliseconds=50), key="late")
        assert not (await first.durable_sleep("nap", timedelta(milliseconds=50))).existing
    async with place.script() as second:
        await second.register()
        again = await second.wait_signal("go")
        assert (again.existing, again.state) == (True, 1)
        with pytest.raises(SignalTimeout):
            await second.wait_signal("go", key="late")
        assert (await second.durable_sleep("nap", timedelta(days=1))).existing
        await second.completed()
    types = await place.types()
    assert (types.count("WaitResolved"), types.count("SleepStarted"), types.count("WaitStarted")) == (3, 1, 2)


async def test_a_wait_ends_early_when_a_pause_is_asked_for_and_goes_on_after_it(place: Place) -> None:
    async with place.script() as first:
        await first.register()
        waiting = asyncio.create_task(first.wait_signal("go"))
        await place.recorded("WaitStarted")
        await place.client.pause("b-1")
        left = await asyncio.wait_for(waiting, 5)
        assert (left.ended_early, left.should_pause, left.existing) == (True, True, False)
        await first.suspended()
    await place.until(Status.PAUSED)
    await place.client.signal("b-1", "go", 7)
    await place.client.resume("b-1")
    async with place.script() as second:
        await second.register()
        got = await second.wait_signal("go")
        assert (got.ended_early, got.state) == (False, 7)
        await second.completed()
    assert (await place.types()).count("WaitStarted") == 1
