"""Code that does not end is ended, with its process if need be; whoever lived beside it goes on elsewhere."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import WorkflowCancelled, WorkflowFailed
from runtara.protocol.limits import CANCEL_GRACE_SECONDS
from runtara.protocol.messages import Status
from runtara.runner import supervisor as supervisor_module
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from runtara.sdk.overdue import EXIT_OVERDUE
from runtara.sdk.workflow import Workflow
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually

from . import stuck
from .faulty import trace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

FLOWS = str(Path(__file__).with_name("stuck.py"))
NEIGHBOURS = 6
COUNT = 250  # of steps of each: they are not through when the process is replaced


class Site:
    """A platform with one worker process, which hosts what does not end, and its neighbours."""

    def __init__(self, settings: Settings, pool: Pool, client: Client, peer: Peer, folder: Path) -> None:
        self.settings = settings
        self.pool = pool
        self.client = client
        self.peer = peer
        self.folder = str(folder)

    @property
    def pids(self) -> set[int]:
        return {child.pid for child in self.pool.children if child.ready.is_set()}

    async def neighbours(self) -> list[Handle[list[int]]]:
        return [
            await self.client.start(stuck.neighbour, self.folder, number, COUNT, id=f"neighbour-{number}")
            for number in range(NEIGHBOURS)
        ]

    async def begins(self, flow: Workflow[[str], None]) -> Handle[None]:
        handle = await self.client.start(flow, self.folder, id="stuck")
        await eventually(lambda: trace(self.folder, "stuck"), within=20)
        return handle

    async def check(self, handles: list[Handle[list[int]]], *, deaths: int) -> None:
        """All are through with the right results; what was guarded happened at most once, no step twice for nothing."""
        results = await asyncio.gather(*(handle.result(timeout=90) for handle in handles))
        assert results == [[number * 1_000 + n for n in range(COUNT)] for number in range(NEIGHBOURS)]
        once = Counter(trace(self.folder, "once"))
        assert max(once.values()) == 1
        assert len(once) >= NEIGHBOURS * (COUNT - deaths)
        repeated = len(trace(self.folder)) - NEIGHBOURS * COUNT
        assert 0 <= repeated <= NEIGHBOURS * deaths  # the step that was under way when the process ended
        assert max([(await handle.get()).restarts for handle in handles]) <= deaths
        await self.peer.is_sound()


@pytest.fixture
async def bench(settings: Settings, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    settings = replace(settings, drain_seconds=2.0)
    monkeypatch.setattr(supervisor_module, "DRAIN_MARGIN_SECONDS", 8.0)
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    pool = await stack.enter_async_context(Pool(settings, [FLOWS]))
    client = await stack.enter_async_context(Client(settings))
    peer = await stack.enter_async_context(connect_peer(settings))
    return Site(settings, pool, client, peer, tmp_path)


async def test_an_endless_loop_in_a_thread_ends_and_nobody_else_notices(bench: Site) -> None:
    before = bench.pids
    neighbours = await bench.neighbours()
    handle = await bench.begins(stuck.loops_in_a_thread)
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=30)
    await eventually(lambda: trace(bench.folder, "stopped"), within=CANCEL_GRACE_SECONDS)
    await bench.check(neighbours, deaths=0)
    assert bench.pids == before
    assert len(trace(bench.folder, "stuck")) == 1


@pytest.mark.parametrize("flow", [stuck.swallows, stuck.sleeps_in_a_thread], ids=lambda flow: flow.name)
async def test_a_worker_with_code_that_never_ends_hands_the_others_over_and_is_replaced(
    bench: Site, flow: Workflow[[str], None]
) -> None:
    (before,) = bench.pids
    neighbours = await bench.neighbours()
    handle = await bench.begins(flow)
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=30)
    await eventually(lambda: bench.pids and before not in bench.pids, within=CANCEL_GRACE_SECONDS + 20)
    await eventually(lambda: not is_alive(before), within=20)
    await bench.check(neighbours, deaths=0)  # they were handed over between two steps: nothing was repeated
    assert len(trace(bench.folder, "stuck")) == 1


async def test_a_worker_whose_event_loop_is_blocked_is_killed_and_replaced(bench: Site) -> None:
    (before,) = bench.pids
    neighbours = await bench.neighbours()
    handle = await bench.begins(stuck.blocks_the_loop)
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=60)
    await eventually(lambda: bench.pids and before not in bench.pids, within=CANCEL_GRACE_SECONDS + 20)
    await eventually(lambda: not is_alive(before), within=30)
    await bench.check(neighbours, deaths=1)
    assert len(trace(bench.folder, "stuck")) == 1


async def test_what_a_stuck_instance_did_is_undone_elsewhere(bench: Site) -> None:
    (before,) = bench.pids
    handle = await bench.begins(stuck.swallows_with_something_to_undo)
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=60)
    assert len(trace(bench.folder, "undone")) == 1
    await eventually(lambda: bench.pids and before not in bench.pids, within=CANCEL_GRACE_SECONDS + 20)
    await eventually(lambda: not is_alive(before), within=20)
    assert (await handle.get()).status is Status.CANCELLED
    await bench.peer.is_sound()


async def test_threads_that_a_time_out_left_behind_end_with_their_process(bench: Site) -> None:
    (before,) = bench.pids
    neighbours = await bench.neighbours()
    handle = await bench.begins(stuck.leaves_threads_behind)
    with pytest.raises(WorkflowFailed, match="StepTimeout"):
        await handle.result(timeout=30)
    await eventually(lambda: bench.pids and before not in bench.pids, within=CANCEL_GRACE_SECONDS + 20)
    await eventually(lambda: not is_alive(before), within=20)
    await bench.check(neighbours, deaths=0)
    assert len(trace(bench.folder, "stuck")) == 2  # its tries


@pytest.mark.parametrize("flow", [stuck.healthy, stuck.impolite], ids=lambda flow: flow.name)
async def test_a_long_blocking_step_that_nobody_cancelled_is_never_killed(
    bench: Site, flow: Workflow[[str, float], int]
) -> None:
    before = bench.pids
    other = await bench.client.start(stuck.neighbour, bench.folder, 1, 10_000, id="other")
    handle = await bench.client.start(flow, bench.folder, 2.0 * CANCEL_GRACE_SECONDS, id="long")
    await eventually(lambda: trace(bench.folder, "computes"), within=20)
    await other.cancel()  # its neighbour is told to end, which is no reason to end this one
    assert {await handle.result(timeout=60)} == before == bench.pids
    assert len(trace(bench.folder, "computes")) == 1
    with pytest.raises(WorkflowCancelled):
        await other.result(timeout=30)
    await bench.peer.is_sound()


class Alone:
    """A platform, and a worker process that nobody supervises."""

    def __init__(self, client: Client, worker: asyncio.subprocess.Process, folder: Path) -> None:
        self.client = client
        self.worker = worker
        self.folder = str(folder)

    async def begins(self, flow: Workflow[[str], None]) -> Handle[None]:
        handle = await self.client.start(flow, self.folder, id="stuck")
        await eventually(lambda: trace(self.folder, "stuck"), within=20)
        return handle


@pytest.fixture
async def alone(settings: Settings, stack: AsyncExitStack, tmp_path: Path) -> AsyncIterator[Alone]:
    settings = replace(settings, drain_seconds=1.0)
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    client = await stack.enter_async_context(Client(settings))
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runtara.sdk.run", FLOWS,
        env={**os.environ, **settings.to_environ()}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert (await worker.stdout.readline()).startswith(b"ready")
        yield Alone(client, worker, tmp_path)
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


@pytest.mark.parametrize("flow", [stuck.swallows, stuck.blocks_the_loop], ids=lambda flow: flow.name)
async def test_a_worker_without_a_supervisor_leaves_with_a_code_that_says_why(
    alone: Alone, flow: Workflow[[str], None]
) -> None:
    handle = await alone.begins(flow)
    await handle.cancel()
    assert await asyncio.wait_for(alone.worker.wait(), 60) == EXIT_OVERDUE
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=30)


async def test_a_worker_that_is_asked_to_stop_does_not_wait_for_code_that_never_ends(alone: Alone) -> None:
    handle = await alone.begins(stuck.swallows)
    alone.worker.terminate()
    assert await asyncio.wait_for(alone.worker.wait(), 60) == 0
    assert trace(alone.folder, "swallowed")
    assert (await handle.get()).status is Status.QUEUED  # handed over, for whoever comes


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
