"""Several engines share the partitions: each has one owner, whoever lost one notices, nobody waits for the dead."""

import asyncio
import dataclasses

import asyncpg
import pytest

from runtara.engine.service import Engine
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.infra.settings import Settings
from tests.support.peer import Peer
from tests.support.platform import running
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of


async def token(peer: Peer, partition: int = 0) -> str | None:
    owner: str | None = await peer.pool.fetchval("SELECT owner FROM partitions WHERE id = $1", partition)
    return owner


async def usurp(peer: Peer) -> None:
    """Have the lease of whoever owns the partition run out, as if it had stood still."""
    await peer.pool.execute("UPDATE partitions SET lease_until = now() - interval '1 s', owner = 'stood-still'")


async def test_one_engine_owns_and_the_other_waits_and_takes_over_when_the_first_closes(
    deployed: Settings, peer: Peer
) -> None:
    async with running(deployed):
        await peer.register("wf")
        await peer.start("i-1")
        first = await token(peer)
        async with running(deployed):
            held = await peer.claim("i-1")
            assert await token(peer) == first
            assert (await held.commit(held.step("a"))).rejected == []
    async with running(deployed):
        await held.complete()
        assert await token(peer) not in (first, None)
    await peer.is_sound()


async def test_an_engine_that_closes_gives_its_partitions_up_at_once(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        await peer.start("i-1")
    assert await token(peer) is None
    async with running(deployed), asyncio.timeout(2):  # less than a lease
        await peer.start("i-2")


async def test_an_engine_that_stands_by_takes_over_from_one_that_leaves(deployed: Settings, peer: Peer) -> None:
    first = Engine(deployed)
    await first.__aenter__()
    await peer.register("wf")
    await peer.start("i-1")
    async with running(deployed):
        await first.__aexit__(None, None, None)
        held = await peer.claim("i-1")
        await held.complete()


async def test_an_owner_whose_lease_was_taken_folds_nothing_more_and_stands_by(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        held = await peer.started("i-1")
        before = await token(peer)
        await usurp(peer)
        assert (await held.commit(held.step("a"))).rejected == []  # by its next tenure
        assert await token(peer) not in (before, "stood-still")
        await held.complete()
    assert (await peer.types("i-1")).count("CheckpointSaved") == 1
    await peer.is_sound()


async def test_two_engines_that_both_believe_they_own_the_partition_write_one_history(
    deployed: Settings, peer: Peer
) -> None:
    """The lease is taken away again and again while they work; what both folded is there once."""
    async with running(deployed), running(deployed):
        await peer.register("wf")
        held = await peer.started("i-1")
        for n in range(40):
            await held.publish(held.step(f"k-{n}"))
            if n % 8 == 3:
                await usurp(peer)
        await held.complete()
    keys = [event["key"] for event in await peer.events("i-1") if event["type"] == "CheckpointSaved"]
    assert keys == [f"k-{n}" for n in range(40)]
    assert "AttemptLost" not in await peer.types("i-1")
    await peer.is_sound()


@pytest.mark.parametrize("partitions", [4])
async def test_every_partition_has_an_owner_whichever_engine_it_is(deployed: Settings, peer: Peer) -> None:
    async with running(deployed), running(deployed), running(deployed):
        await peer.register("wf")
        for n in range(12):
            held = await peer.started(f"i-{n}")
            await held.complete()

        async def are_owned() -> bool:
            return None not in [await token(peer, partition) for partition in range(4)]

        await eventually(are_owned)  # for a moment nobody has one that moves
    await peer.is_sound()


@pytest.mark.parametrize("partitions", [12])
async def test_one_engine_owns_more_partitions_than_it_has_connections_to_share(deployed: Settings, peer: Peer) -> None:
    async with running(dataclasses.replace(deployed, database_connections=2)):
        await peer.register("wf")
        for n in range(24):
            held = await peer.started(f"i-{n}")
            await held.complete()
        assert None not in [await token(peer, partition) for partition in range(12)]
    await peer.is_sound()


def through(proxy: Proxy, settings: Settings) -> Settings:
    return dataclasses.replace(settings, nats_url=proxy.url)


async def test_an_engine_that_is_cut_off_from_nats_goes_on_when_it_is_back(deployed: Settings, peer: Peer) -> None:
    async with proxy_of(deployed.require_nats_url()) as proxy, running(through(proxy, deployed)):
        await peer.register("wf")
        held = await peer.started("i-1")
        for n in range(3):
            await proxy.cut()
            await held.publish(held.step(f"k-{n}"))
            await proxy.mend()
            assert (await held.commit(held.step(f"after-{n}"))).rejected == []
        await held.complete()
    await peer.is_sound()


async def test_postgres_may_be_away_while_the_journal_goes_on(deployed: Settings, peer: Peer) -> None:
    """Its sessions are ended under the engine; what was sent meanwhile is folded when it has connected again."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND application_name LIKE 'runtara %'"
    )
    async with running(deployed):
        await peer.register("wf")
        held = await peer.started("i-1")
        admin = await asyncpg.connect(deployed.require_database_url())
        for n in range(3):
            await held.publish(held.step(f"k-{n}"))
            await admin.execute(end)
        await admin.close()
        last = await held.publish(held.step("last"))

        async def folded() -> bool:
            try:
                return await peer.cursor() >= last
            except (asyncpg.PostgresError, *CONNECTION_ERRORS):
                return False  # our own sessions were ended too

        await eventually(folded, within=20)
        await held.complete()
    assert (await peer.types("i-1")).count("CheckpointSaved") == 4
    await peer.is_sound()
