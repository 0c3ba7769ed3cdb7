"""Workflows that fail, in every way in which code fails."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import WorkflowFailed
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running

from . import faulty

pytestmark = pytest.mark.timeout(60)

FLOWS = str(Path(__file__).with_name("faulty.py"))


@pytest.fixture
async def client(settings: Settings, stack: AsyncExitStack) -> Client:
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    await stack.enter_async_context(Pool(settings, [FLOWS]))
    return await stack.enter_async_context(Client(settings))


@pytest.fixture
async def peer(client: Client, settings: Settings) -> AsyncIterator[Peer]:
    async with connect_peer(settings) as peer:
        yield peer


async def test_a_step_that_fails_and_then_succeeds_is_recorded_with_its_tries(
    client: Client, peer: Peer, tmp_path: Path
) -> None:
    handle = await client.start(faulty.stubborn, folder=str(tmp_path), id="i-1")
    assert await handle.result(timeout=20) == "at last"
    assert (tmp_path / "tries").read_text().split() == ["try"] * 3
    types = await peer.types("i-1")
    assert (types.count("StepFailed"), types.count("CheckpointSaved")) == (2, 1)
    await peer.is_sound()


async def test_a_workflow_that_raises_fails_with_what_it_raised(client: Client, peer: Peer) -> None:
    handle = await client.start(faulty.unlucky, id="i-1")
    with pytest.raises(WorkflowFailed, match="LookupError: nothing there") as caught:
        await handle.result(timeout=20)
    assert (caught.value.attributes["type"], caught.value.attributes["message"]) == ("LookupError", "nothing there")
    assert (await handle.get()).restarts == 0
    await peer.is_sound()


@pytest.mark.slow
async def test_a_workflow_that_crashes_every_time_is_restarted_ever_later_and_fails_with_its_last_words(
    client: Client, peer: Peer, tmp_path: Path
) -> None:
    handle = await client.start(faulty.deadly, folder=str(tmp_path), id="i-1")
    with pytest.raises(WorkflowFailed) as caught:
        await handle.result(timeout=40)
    deaths = (tmp_path / "deaths").read_text().split()
    # the very first may die before its claim is in the journal: that one is not an attempt that was lost
    assert len(set(deaths)) in (4, 5)
    assert f"last words of {deaths[-1]}" in str(caught.value)
    events = await peer.events("i-1")
    lost = [event["recorded_at"] for event in events if event["type"] == "AttemptLost"]
    assert len(lost) == 4
    queued = [
        msgspec.json.decode(event["data"]).get("not_before_us") for event in events if event["type"] == "InstanceQueued"
    ]
    assert queued[:2] == [None, None]  # the first restart at once, then after 1, 2, 4 … seconds
    assert [due - was for due, was in zip(queued[2:], lost[1:], strict=False)] == [1_000_000, 2_000_000]
    assert [event["type"] for event in events][-2:] == ["AttemptLost", "InstanceFailed"]
    await peer.is_sound()


@pytest.mark.slow
async def test_a_workflow_that_crashes_after_each_new_step_gets_through_because_only_standstill_is_counted(
    client: Client, peer: Peer, tmp_path: Path
) -> None:
    handle = await client.start(faulty.slowly_deadly, folder=str(tmp_path), count=5, id="i-1")
    assert await handle.result(timeout=40) == 5
    view = await handle.get()
    assert (view.restarts, view.attempt) == (5, 6)
    assert len(faulty.trace(str(tmp_path))) == 5
    await peer.is_sound()
