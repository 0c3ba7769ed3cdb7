"""A worker whose credential lacks a right says which, ends, and its work goes to one that has it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import CredentialRefused, NotAllowed
from runtara.runner.child import Child, Ended, worker_command, worker_environ
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from runtara.sdk.connection import Connection
from runtara.sdk.run import EXIT_UNREACHABLE
from tests.support.nats import OwnNats, own_nats
from tests.support.peer import connect_peer
from tests.support.platform import deploy, running

from . import faulty

pytestmark = pytest.mark.timeout(60)

FLOWS = str(Path(__file__).with_name("faulty.py"))
USERS = """authorization { users: [
  { user: platform, password: secret }
  { user: mute, password: secret, permissions: { publish: { deny: ["*.reports.>", "*.commands.>"] } } }
] }"""


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[OwnNats]:
    async with own_nats(tmp_path, USERS) as nats:
        yield nats


@pytest.fixture
async def site(settings: Settings, nats: OwnNats) -> Settings:
    site = dataclasses.replace(
        settings, nats_url=nats.url, nats_keys=None, nats_user="platform", nats_password="secret"
    )
    await deploy(site)
    return site


async def run_to_its_end(settings: Settings) -> Ended:
    """A worker process, from its start to the end that it finds by itself."""
    child = await Child.spawn(worker_command([FLOWS]), worker_environ(settings))
    try:
        return await child.ended
    finally:
        await child.stop(0)


async def test_a_worker_that_may_not_publish_its_reports_ends_with_the_reason_and_another_does_its_work(
    site: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    mute = dataclasses.replace(site, nats_user="mute")
    await stack.enter_async_context(running(site))
    client = await stack.enter_async_context(Client(site))
    peer = await stack.enter_async_context(connect_peer(site))
    await peer.register("steps")
    handle = await client.start(faulty.steps, folder=str(tmp_path), number=1, count=3, id="i-1")

    ended = await run_to_its_end(mute)
    assert ended.was_ready
    assert ended.code == EXIT_UNREACHABLE
    assert f"error: the server refused publish on '{site.deployment}.reports.0.default.w.w-" in ended.stderr
    assert "this credential has no right to it" in ended.stderr
    assert await peer.types("i-1") == ["InstanceCreated", "InstanceQueued"]

    await stack.enter_async_context(Pool(site, [FLOWS]))
    assert await handle.result(timeout=20) == [1_000, 1_001, 1_002]
    assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") == 0
    await peer.is_sound()


async def test_a_client_that_may_not_publish_commands_is_told_so_each_time(site: Settings) -> None:
    async with running(site), Client(dataclasses.replace(site, nats_user="mute")) as client:
        for id in ("i-1", "i-2"):
            with pytest.raises(NotAllowed, match=r"refused publish on '.*\.commands\.0\.default"):
                async with asyncio.timeout(5):
                    await client.start(faulty.steps, folder="", number=1, count=1, id=id)


async def test_a_worker_whose_login_is_refused_ends_with_the_reason(site: Settings) -> None:
    ended = await run_to_its_end(dataclasses.replace(site, nats_password="wrong"))
    assert ended.code == EXIT_UNREACHABLE
    assert "does not accept this credential" in ended.stderr
    assert "RUNTARA_NATS_USER" in ended.stderr


async def test_an_engine_on_a_server_without_accounts_says_once_that_nobody_is_kept_apart(
    site: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(site), Client(site) as client:
        assert (await client.list()).instances == []
        with pytest.raises(CredentialRefused, match="not in operator mode"):
            await client._connection.call("credential", {}, dict)
        async with await Connection.open(site, kind=Kind.RUNNER, user="r-1", name="runner", patience=5) as runner:
            assert await runner.issue(kind=Kind.CONTAINER, user="box", instance="i-1") is None
    assert [record.getMessage().split()[0] for record in caplog.records].count("instances_not_isolated") == 1
