"""Processes that stand still (SIGSTOP) for longer than their lease, and wake up believing that nothing happened."""

import asyncio
import dataclasses
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from runtara.cli.children import Part
from runtara.infra.settings import Settings
from runtara.protocol.limits import OWNER_LEASE_SECONDS
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy
from tests.support.polling import eventually

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

FLOWS = str(Path(__file__).with_name("faulty.py"))


def stop(process: int | None) -> int:
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    return process


@pytest.fixture
async def stage(settings: Settings) -> Settings:
    await deploy(settings)
    return settings


async def is_owned_by_another(peer: Peer, former: str | None) -> bool:
    owner = await peer.pool.fetchval("SELECT owner FROM partitions WHERE lease_until > now()")
    return owner not in (former, None)


async def until_shares(peer: Peer, *expected: int, within: float = 20.0) -> None:
    """Until the engines that live say that they own so many partitions each, and somebody owns each of them."""

    async def are_so() -> bool:
        owned = await peer.pool.fetch("SELECT owned FROM engines WHERE lease_until > now() ORDER BY owned DESC")
        held = await peer.pool.fetchval("SELECT count(*) FROM partitions WHERE lease_until > now()")
        return held == 4 and [row["owned"] for row in owned] == list(expected)

    await eventually(are_so, within=within)


async def test_a_stopped_engine_is_replaced_and_nothing_it_does_afterwards_counts(
    stage: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    peer = await stack.enter_async_context(connect_peer(stage))
    first = await stack.enter_async_context(Part(stage, ["engine"]))
    await eventually(lambda: is_owned_by_another(peer, None))
    former = await peer.pool.fetchval("SELECT owner FROM partitions")
    second = await stack.enter_async_context(Part(stage, ["engine"]))
    await stack.enter_async_context(Pool(stage, [FLOWS]))
    client = await stack.enter_async_context(Client(stage))
    handles = [
        await client.start(faulty.steps, folder=str(tmp_path), number=n, count=600, id=f"batch-{n}") for n in range(5)
    ]
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= 50)
    stopped = stop(first.pid)
    try:
        await eventually(lambda: is_owned_by_another(peer, former), within=OWNER_LEASE_SECONDS + 2)
    finally:
        os.kill(stopped, signal.SIGCONT)  # in the middle of the workflows, owning nothing any more
    for n, handle in enumerate(handles):
        assert await handle.result(timeout=40) == [n * 1_000 + at for at in range(600)]
    owner = await peer.owner()
    assert owner != former
    assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") == 0
    assert len(faulty.trace(str(tmp_path))) == 5 * 600
    await peer.is_sound()

    assert first.pid == stopped  # it lives, and stands by: it takes over when its successor ends
    assert second.pid is not None
    stop(second.pid)
    with suppress(ProcessLookupError):
        await eventually(lambda: is_owned_by_another(peer, owner), within=OWNER_LEASE_SECONDS + 2)
        os.kill(second.pid, signal.SIGCONT)
    again = await client.start(faulty.steps, folder=str(tmp_path), number=9, count=3)
    assert await again.result(timeout=20) == [9_000, 9_001, 9_002]


async def test_engines_share_again_after_one_of_them_stood_still(
    settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    stage = dataclasses.replace(settings, partitions=4)
    await deploy(stage)
    peer = await stack.enter_async_context(connect_peer(stage))
    await stack.enter_async_context(Part(stage, ["engine"]))
    await until_shares(peer, 4)
    await stack.enter_async_context(Pool(stage, [FLOWS]))
    client = await stack.enter_async_context(Client(stage))
    handles = [
        await client.start(faulty.steps, folder=str(tmp_path), number=n, count=800, id=f"batch-{n}") for n in range(8)
    ]
    second = await stack.enter_async_context(Part(stage, ["engine"]))
    await until_shares(peer, 2, 2)
    stopped = stop(second.pid)
    try:
        await until_shares(peer, 4, within=OWNER_LEASE_SECONDS + 2)
    finally:
        os.kill(stopped, signal.SIGCONT)
    await until_shares(peer, 2, 2)
    assert [await handle.result(timeout=40) for handle in handles] == [
        [n * 1_000 + at for at in range(800)] for n in range(8)
    ]
    assert len(faulty.trace(str(tmp_path))) == 8 * 800
    assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") == 0
    await peer.is_sound()


async def test_a_worker_stopped_beyond_its_lease_writes_nothing_into_the_log_when_it_wakes_up(
    stage: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    peer = await stack.enter_async_context(connect_peer(stage))
    await stack.enter_async_context(Part(stage, ["engine"]))
    zombie = await stack.enter_async_context(Pool(stage, [FLOWS]))
    client = await stack.enter_async_context(Client(stage))
    handles = [
        await client.start(faulty.steps, folder=str(tmp_path), number=n, count=400, id=f"batch-{n}") for n in range(5)
    ]
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= 50)
    stopped = stop(zombie.children[0].pid)
    try:
        other = await stack.enter_async_context(Pool(stage, [FLOWS]))
        (worker,) = other.workers

        async def all_run_elsewhere() -> bool:
            return bool(await peer.pool.fetchval("SELECT count(*) FROM instances WHERE worker = $1", worker) == 5)

        await eventually(all_run_elsewhere, within=20)
    finally:
        os.kill(stopped, signal.SIGCONT)
    results = await asyncio.gather(*(handle.result(timeout=50) for handle in handles))
    assert results == [[n * 1_000 + at for at in range(400)] for n in range(5)]
    for n in range(5):
        events = await peer.events(f"batch-{n}")
        lost = next(event["version"] for event in events if event["type"] == "AttemptLost")
        assert {event["attempt"] for event in events if event["version"] > lost} == {2}
        keys = [event["key"] for event in events if event["type"] == "CheckpointSaved"]
        assert len(keys) == len(set(keys)) == 400
    await peer.is_sound()
