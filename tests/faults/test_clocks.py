"""Clocks that are wrong, or jump: deadlines are the journal's."""

import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.runner.child import worker_environ
from runtara.runner.exits import Exits
from runtara.runner.supervisor import Supervisor
from runtara.sdk.client import Client
from tests.support.peer import connect_peer
from tests.support.platform import deploy, running

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

HERE = Path(__file__)
FLOWS = str(HERE.with_name("faulty.py"))
HOUR = 3_600


@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["an hour ahead", "an hour behind"])
async def test_a_worker_whose_clock_is_wrong_waits_as_long_as_it_should_before_the_next_try(
    shift: int, settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    """Its process dies while a step waits for its next try, and another one goes on waiting."""
    await deploy(settings)
    await stack.enter_async_context(running(settings))
    exits = await stack.enter_async_context(Exits(settings))
    command = [sys.executable, str(HERE.with_name("shifted.py")), str(shift), FLOWS]

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
