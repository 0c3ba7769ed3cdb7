"""The same workflows on the platform in memory and on the real one: the same events, memos and outcomes.

Timers fire beside whatever else happens, so where a step is tried again in its process the place of TimerFired is left
out; where branches run at once, their order is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from runtara.infra.settings import Settings
from runtara.protocol.api import MemosReply
from runtara.protocol.errors import ExecutionFailed
from runtara.protocol.messages import Status
from runtara.sdk.client import Client, Handle
from runtara.sdk.testing import MemoryPlatform
from runtara.sdk.workflow import Workflow
from tests.support.polling import eventually

from . import flows
from .conftest import hosted_really

pytestmark = pytest.mark.timeout(60)
Drive = Callable[[Handle[Any]], Awaitable[object]]


async def nothing(handle: Handle[Any]) -> None:
    pass


async def until(handle: Handle[Any], *statuses: Status) -> None:
    async def is_there() -> bool:
        if isinstance(handle._client, MemoryPlatform):
            await handle._client.advance(timedelta(milliseconds=15))
        return (await handle.get()).status in statuses

    await eventually(is_there)


async def approve(handle: Handle[Any]) -> None:
    await until(handle, Status.WAITING)
    await handle.signal("approved", {"by": "ada"})


async def pause_and_resume(handle: Handle[Any]) -> None:
    await until(handle, Status.WAITING)
    await handle.pause(reason="lunch")
    await handle.signal("approved", "later")
    await handle.resume()


async def cancel(handle: Handle[Any]) -> None:
    await until(handle, Status.WAITING)
    await handle.cancel(reason="too late")


async def retry(handle: Handle[Any]) -> None:
    await until(handle, Status.FAILED)
    await handle.retry()


LIVES: Final[dict[str, tuple[Workflow[..., Any], dict[str, object], Drive]]] = {
    "steps": (flows.steps, {"n": 3}, nothing),
    "branches": (flows.at_once, {"count": 5}, nothing),
    "a thread": (flows.in_a_thread, {"word": "hi"}, nothing),
    "a step tried again": (flows.retried, {}, nothing),
    "a declared error": (flows.declined, {"amount": 7}, nothing),
    "a failure": (flows.failing, {}, nothing),
    "a failure, retried": (flows.failing, {}, retry),
    "a nap": (flows.napping, {}, nothing),
    "a signal": (flows.approval, {"patience": 60.0}, approve),
    "a signal that never comes": (flows.approval, {"patience": 0.05}, nothing),
    "a pause": (flows.approval, {"patience": 60.0}, pause_and_resume),
    "a cancel": (flows.approval, {"patience": 60.0}, cancel),
    "a child": (flows.parent, {"n": 4}, nothing),
    "a child that fails": (flows.parent_of_failing, {}, nothing),
    "continued": (flows.rounds, {"left": 2}, nothing),
}


class Story(msgspec.Struct, frozen=True):
    """What is to be the same; deadlines are not."""

    outcome: object
    events: list[tuple[str, str | None]]
    memos: list[tuple[str, str, object]]


async def told(client: Client, name: str) -> Story:
    workflow, input, drive = LIVES[name]
    flows.tries.clear()
    handle = await client.start(workflow, id=name.replace(" ", "-").replace(",", ""), **input)
    await drive(handle)
    try:
        outcome: object = await handle.result(timeout=20)
    except ExecutionFailed as exc:
        outcome = str(exc)
    events = [(event.type, event.key) async for event in handle.history()]
    reply = await client._api.call("memos", {"after": 0}, MemosReply, instance=handle.id)
    memos = [(memo.key, memo.type, _without_times(memo.data)) for memo in reply.memos if memo.type != "TimerFired"]
    if name == "a step tried again":
        events = [event for event in events if event[0] != "TimerFired"]
    return Story(outcome, sorted(events, key=str) if name == "branches" else events, sorted(memos, key=str))


def _without_times(data: msgspec.Raw) -> object:
    value: object = msgspec.json.decode(data)
    if isinstance(value, dict):
        value.pop("due_us", None)
        if isinstance(error := value.get("error"), dict):
            error["attributes"].pop("traceback", None)
    return value


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[Client]:
    async with hosted_really(settings, *flows.ALL) as client:
        yield client


async def test_both_platforms_tell_the_same_stories(real: Client) -> None:
    for name in LIVES:
        async with MemoryPlatform(*flows.ALL) as memory:
            in_memory = await told(memory, name)
        assert in_memory == await told(real, name), name


async def forked(client: Client) -> Story:
    """Of a run of steps and a child, forked at a key, with an answer given by hand."""
    source = await client.start(flows.steps, n=3, id="source")
    await source.result(timeout=20)
    fork = await source.fork(at="shout", set={"begun": {"n": 5}}, new_id="fork")
    outcome = await fork.result(timeout=20)
    reply = await client._api.call("memos", {"after": 0}, MemosReply, instance="fork")
    memos = [(memo.key, memo.type, _without_times(memo.data)) for memo in reply.memos]
    return Story(outcome, [(event.type, event.key) async for event in fork.history()], memos)


async def test_both_platforms_make_the_same_forks(real: Client) -> None:
    async with MemoryPlatform(*flows.ALL) as memory:
        in_memory = await forked(memory)
    assert in_memory == await forked(real)
    assert in_memory.outcome == 11  # a step with another argument is another step, and runs
    assert [type for type, _ in in_memory.events].count("MemoCopied") == 3
