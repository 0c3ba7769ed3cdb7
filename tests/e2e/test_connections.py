"""Connections from a client to a worker of its own process: opened there, kept for a while, and nowhere to be read."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from runtara.engine.connections import Connections
from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.configuration import OpenConnection
from runtara.protocol.errors import ConnectionNotFound, WorkflowFailed
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from runtara.sdk.discovery import load
from runtara.sdk.worker import Worker
from tests.support.polling import eventually

from .connected import SECRET_LENGTH

pytestmark = pytest.mark.timeout(60)
SECRET = "s" * SECRET_LENGTH
FLOWS = str(Path(__file__).with_name("connected.py"))


@pytest.fixture
async def pool(deployed: Settings, engine: Engine, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[Pool]:
    """Workers that log all they can; what they and the engine write shows no secret."""
    async with Pool(replace(deployed, log_level="debug"), [FLOWS]) as pool:
        yield pool
    written = capfd.readouterr()
    assert "worker" in written.err, "it is captured"
    assert SECRET not in written.out + written.err


async def test_steps_of_both_colours_open_a_connection_and_a_killed_worker_changes_nothing(
    client: Client, pool: Pool, tmp_path: Path
) -> None:
    await client.connections.set("crm", "http_bearer", {"token": SECRET})
    handle = await client.start("connected", {"folder": str(tmp_path)})
    async with asyncio.timeout(20):
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        os.kill(pool.children[0].pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert await handle.result(timeout=30) == [SECRET_LENGTH, SECRET_LENGTH, SECRET_LENGTH]
    assert (await handle.get()).restarts == 1
    log = [event async for event in handle.history()]
    assert SECRET not in str([bytes(event.data) for event in log])
    (view,) = await client.connections.list()
    assert view.used_by == ["connected", "undeclared"]


async def test_while_no_engine_runs_a_step_waits_for_its_connection(
    client: Client, deployed: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await client.connections.set("crm", "http_bearer", {"token": SECRET})
    async with Worker(deployed, load([FLOWS])) as worker:
        handle = await client.start("connected", {"folder": str(tmp_path)})
        await eventually(lambda: (tmp_path / "begun").exists(), within=20)
        await stack.pop_all().aclose()  # the engine, and the client
        worker._openings._kept.clear()
        (tmp_path / "go").touch()
        await eventually(lambda: worker._openings._answers, within=20, what="it asks")
        async with Engine(deployed), Client(deployed) as again:
            assert await again.handle(handle.id).result(timeout=30) == [SECRET_LENGTH] * 3


async def test_a_workflow_that_was_not_registered_for_it_is_refused(client: Client, pool: Pool) -> None:
    await client.connections.set("files", "sftp", {"password": SECRET})
    with pytest.raises(WorkflowFailed, match="undeclared does not name it"):
        await (await client.start("undeclared", {"name": "files"})).result(timeout=30)
    with pytest.raises(WorkflowFailed, match="there is no connection 'crm'"):
        await (await client.start("undeclared", {"name": "crm"})).result(timeout=30)


async def test_many_instances_are_one_question_and_what_is_deleted_is_gone_in_a_minute(
    client: Client, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.connections.set("crm", "http_bearer", {"token": SECRET})
    asked: list[str] = []
    opened = Connections.open

    async def counted(self: Connections, tenant: str, instance: str, request: OpenConnection) -> None:
        asked.append(instance)
        await opened(self, tenant, instance, request)

    monkeypatch.setattr(Connections, "open", counted)
    async with Worker(deployed, load([FLOWS])) as worker:
        handles = [await client.start("undeclared", {"name": "crm"}) for _ in range(20)]
        assert [await handle.result(timeout=30) for handle in handles] == [SECRET_LENGTH] * 20
        assert len(asked) == 1
        await client.connections.delete("crm")
        worker._openings._kept = {key: (kept - 61, value) for key, (kept, value) in worker._openings._kept.items()}
        with pytest.raises(WorkflowFailed) as caught:
            await (await client.start("undeclared", {"name": "crm"})).result(timeout=30)
        assert caught.value.type == ConnectionNotFound.__name__
