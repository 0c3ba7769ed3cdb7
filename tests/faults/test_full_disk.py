"""A disk that runs full under NATS, under Postgres, or under both, while workflows record, and has room again later."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.errors import ServerFailed
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.disk import SmallDisk, small_disk
from tests.support.peer import connect_peer
from tests.support.polling import eventually

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
WORKFLOWS = 10
STEPS = 300
UNDER = {"both": "data", "NATS": "data/nats", "Postgres": "data/postgres"}


@pytest.fixture(params=UNDER)
def whose(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(whose: str, data: Path) -> Iterator[SmallDisk]:
    with small_disk(data.parent / UNDER[whose], megabytes=200) as disk:
        yield disk


@pytest.fixture
async def own_servers(disk: SmallDisk, data: Path) -> AsyncIterator[EmbeddedServers]:
    async with EmbeddedServers(data) as servers:
        yield servers


async def postgres_needs_room(site: Settings) -> None:
    """A new segment of its write-ahead log, for which it panics."""
    connection = await asyncpg.connect(site.require_database_url())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute("SELECT pg_switch_wal(); CREATE TABLE beyond (x int)")
    await connection.close()


async def test_every_step_is_in_the_log_once_when_there_is_room_again(
    whose: str, disk: SmallDisk, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    folder = str(tmp_path)
    handles = [
        await client.start(faulty.steps, folder=folder, number=n, count=STEPS, id=f"batch-{n}")
        for n in range(WORKFLOWS)
    ]
    await eventually(lambda: len(faulty.trace(folder)) >= 200)
    disk.fill()
    nats, postgres = own_servers.nats, own_servers.postgres
    if whose != "NATS":
        await postgres_needs_room(site)
        await eventually(lambda: postgres.pid is None, what="Postgres running")
    if whose != "Postgres":
        assert nats.spec.ails is not None
        await eventually(nats.spec.ails, within=15, what="what is wrong with NATS")
    disk.fill()

    disk.make_room()
    results = await asyncio.gather(*(handle.result(timeout=40) for handle in handles))
    assert results == [[n * 1_000 + at for at in range(STEPS)] for n in range(WORKFLOWS)]
    assert len(faulty.trace(folder)) == WORKFLOWS * STEPS  # each was acknowledged: none had to be done again
    assert (nats.starts, postgres.starts) == (1 if whose == "Postgres" else 2, 1 if whose == "NATS" else 2)
    async with connect_peer(site) as peer:
        for n in range(WORKFLOWS):
            keys = [event["key"] for event in await peer.events(f"batch-{n}") if event["type"] == "CheckpointSaved"]
            assert len(keys) == len(set(keys)) == STEPS
        assert await peer.pool.fetchval("SELECT max(restarts) FROM instances") == 0
        await peer.is_sound()


@pytest.mark.parametrize("whose", ["both"], indirect=True)
async def test_servers_that_find_a_full_disk_at_their_first_start_say_so(disk: SmallDisk, data: Path) -> None:
    disk.fill()
    with pytest.raises(ServerFailed, match="is full; make room and start again"):
        await EmbeddedServers(data).__aenter__()
    disk.make_room()
    async with EmbeddedServers(data) as servers:
        assert servers.postgres.is_up
