"""Clocks that are wrong, or jump: deadlines are the journal's."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.runner.child import worker_environ
from runtara.runner.exits import Exits
from runtara.runner.pool import Pool
from runtara.runner.supervisor import Supervisor
from runtara.sdk.client import Client
from tests.support.peer import connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually

from . import faulty
from .test_waiting import slept_well

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

HERE = Path(__file__)
FLOWS = str(HERE.with_name("faulty.py"))
SHIFTED = str(HERE.with_name("shifted.py"))
HOUR = 3_600
SHIFTS = pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["an hour ahead", "an hour behind"])
DOZERS = 20


@asynccontextmanager
async def shifting_engine(shift: int, settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """An engine whose clock jumps when it gets SIGUSR1."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, SHIFTED, str(shift), "engine", "--child", env={**os.environ, **settings.to_environ()},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"ready")
        yield process
    finally:
        process.terminate()
        await process.wait()


@SHIFTS
async def test_a_worker_whose_clock_is_wrong_waits_as_long_as_it_should_before_the_next_try(
    shift: int, settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    """Its process dies while a step waits for its next try, and another one goes on waiting."""
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    exits = await stack.enter_async_context(Exits(settings))
    command = [sys.executable, SHIFTED, str(shift), "worker", FLOWS]

    async def environ() -> dict[str, str]:
        return worker_environ(settings)

    supervisor = Supervisor(command, environ, processes=1, grace=1, on_ended=exits.tell)
    await stack.enter_async_context(supervisor)
    client = await stack.enter_async_context(Client(settings))
    peer = await stack.enter_async_context(connect_peer(settings))

    handle = await client.start(faulty.patient, folder=str(tmp_path), id="i-1")
    await peer.until_type("i-1", "StepFailed")
    os.kill(supervisor.children[0].pid, signal.SIGKILL)
    assert await handle.result(timeout=20) == "at last"

    first, second = (float(moment) for moment in faulty.trace(str(tmp_path), "moments"))
    assert 2.5 <= second - first < 6
    assert (await peer.types("i-1")).count("AttemptStarted") == 2
    await peer.is_sound()


@SHIFTS
async def test_timers_fire_once_and_not_early_when_the_clock_of_their_engine_jumps(
    shift: int, settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await deploy(settings)
    engine = await stack.enter_async_context(shifting_engine(shift, settings))
    await stack.enter_async_context(Pool(settings, [FLOWS]))
    client = await stack.enter_async_context(Client(settings))
    handles = [await client.start(faulty.dozes, folder=str(tmp_path), number=n, rounds=4) for n in range(DOZERS)]
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= DOZERS, within=30)
    engine.send_signal(signal.SIGUSR1)
    assert await asyncio.gather(*(handle.result(timeout=30) for handle in handles)) == [4] * DOZERS
    async with connect_peer(settings) as peer:
        await slept_well(peer)
