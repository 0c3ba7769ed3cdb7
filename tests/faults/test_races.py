"""Two things asked of an instance at the same moment: one outcome, told to all who ask, and nothing left open."""

import asyncio
import contextlib
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import IllegalTransition, WorkflowCancelled, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.peer import connect_peer
from tests.support.platform import deploy, running

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
RACES = 60
STEPS = 5


@pytest.fixture
async def pool(settings: Settings, stack: AsyncExitStack) -> Pool:
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    return await stack.enter_async_context(Pool(settings, [FLOWS]))


@pytest.fixture
async def client(settings: Settings, stack: AsyncExitStack, pool: Pool) -> Client:
    return await stack.enter_async_context(Client(settings))


async def ends(settings: Settings, *types: str) -> dict[str, list[str]]:
    """Each instance's events of `types`, in order."""
    async with connect_peer(settings) as peer:
        await peer.is_sound()
        rows = await peer.pool.fetch("SELECT instance, type FROM events ORDER BY instance, version")
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["instance"], []).extend([row["type"]] if row["type"] in types else [])
    return found


async def test_a_pause_that_meets_the_end_is_obeyed_or_refused(
    client: Client, settings: Settings, chance: random.Random, tmp_path: Path
) -> None:
    async def one(number: int) -> bool:
        handle = await client.start(faulty.steps, folder=str(tmp_path), number=number, count=STEPS)
        await asyncio.sleep(chance.random() * 0.2)
        try:
            await handle.pause()
        except IllegalTransition:
            paused = False
        else:
            paused = True
            with contextlib.suppress(IllegalTransition):  # it ended before it saw the pause
                await handle.resume()
        assert await handle.result(timeout=60) == [number * 1_000 + n for n in range(STEPS)]
        return paused

    outcomes = await asyncio.gather(*(one(number) for number in range(RACES)))
    found = await ends(settings, "InstanceCompleted", "PauseRequested")
    assert all(types.count("InstanceCompleted") == 1 and types[-1] == "InstanceCompleted" for types in found.values())
    assert sum("PauseRequested" in types for types in found.values()) == sum(outcomes)


async def test_cancels_at_once_cancel_once(
    client: Client, settings: Settings, chance: random.Random, tmp_path: Path
) -> None:
    """Some meet its end as well: then it is completed, and whoever came too late is told so."""

    async def cancel(handle: Handle[list[int]]) -> bool:
        await asyncio.sleep(chance.random() * 0.1)
        try:
            await handle.cancel()
        except IllegalTransition:
            return False
        return True

    async def one(number: int) -> tuple[list[bool], bool]:
        handle = await client.start(faulty.steps, folder=str(tmp_path), number=number, count=STEPS)
        told = await asyncio.gather(*(cancel(handle) for _ in range(3)))
        try:
            await handle.result(timeout=60)
        except WorkflowCancelled:
            return told, True
        return told, False

    outcomes = await asyncio.gather(*(one(number) for number in range(RACES)))
    assert all(all(told) for told, cancelled in outcomes if cancelled), "a cancelled one refuses no cancel"
    found = await ends(settings, "CancelRequested", "InstanceCancelled", "InstanceCompleted")
    assert all(types.count("CancelRequested") <= 1 for types in found.values())
    assert all(types[-1] in ("InstanceCancelled", "InstanceCompleted") for types in found.values())
    assert sum("InstanceCancelled" in types for types in found.values()) == sum(cancelled for _, cancelled in outcomes)


async def test_what_a_failed_attempt_says_late_does_not_count_in_its_retry(
    client: Client, pool: Pool, settings: Settings, tmp_path: Path
) -> None:
    """Its worker stands still, its lease ends, the instance has no other attempt and fails. Then the worker wakes."""
    handle = await client.start(faulty.one_try, folder=str(tmp_path), number=7, count=40)
    while len(faulty.trace(str(tmp_path))) < 10:
        await asyncio.sleep(0.01)
    (child,) = pool.children
    os.kill(child.pid, signal.SIGSTOP)
    try:
        with pytest.raises(WorkflowFailed, match="1 attempts in a row were lost"):
            await handle.result(timeout=60)
        await handle.retry()
        other = Pool(settings, [FLOWS])
        async with other:
            while (await handle.get()).status is not Status.RUNNING:
                await asyncio.sleep(0.01)
            os.kill(child.pid, signal.SIGCONT)
            assert await handle.result(timeout=60) == [7_000 + n for n in range(40)]
    finally:
        os.kill(child.pid, signal.SIGCONT)
    async with connect_peer(settings) as peer:
        keys = [event["key"] for event in await peer.events(handle.id) if event["type"] == "CheckpointSaved"]
        assert len(keys) == len(set(keys)) == 40
        await peer.is_sound()
