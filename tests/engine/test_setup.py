"""Creating a deployment: identity, schema and streams, made once and recognised ever after."""

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from runtara.engine.service import Engine
from runtara.engine.streams import create_stream, journal_config, stream_info
from runtara.infra.bus import Bus
from runtara.infra.schema import metadata
from runtara.infra.settings import Settings
from runtara.protocol.errors import JournalMismatch, StreamMissing
from runtara.protocol.subjects import Subjects
from tests.support.peer import Peer
from tests.support.platform import connect, deploy, running


async def created(bus: Bus, stream: str) -> str:
    info = await stream_info(bus, stream)
    assert info is not None
    return info.created


async def change(bus: Bus, stream: str, **fields: Any) -> None:
    """Change a stream's configuration behind our back."""
    info = msgspec.json.decode(await bus.jetstream(f"STREAM.INFO.{stream}"))
    await bus.jetstream(f"STREAM.UPDATE.{stream}", info["config"] | fields)


async def test_a_deployment_is_made_once_and_then_found_again(settings: Settings) -> None:
    first = await deploy(settings)
    async with await connect(settings) as bus:
        subjects = Subjects(settings.deployment)
        before = [await created(bus, name) for name in (subjects.journal_stream(0), subjects.run_stream)]
        assert await deploy(settings) == first
        assert [await created(bus, name) for name in (subjects.journal_stream(0), subjects.run_stream)] == before


async def test_processes_that_deploy_at_once_agree(settings: Settings) -> None:
    assert len(set(await asyncio.gather(*(deploy(settings) for _ in range(3))))) == 1


async def test_the_partition_count_of_a_deployment_stays_what_it_was(settings: Settings) -> None:
    await deploy(dataclasses.replace(settings, partitions=2))
    await deploy(dataclasses.replace(settings, partitions=5))
    async with await connect(settings) as bus:
        assert await stream_info(bus, Subjects(settings.deployment).journal_stream(1)) is not None
        assert await stream_info(bus, Subjects(settings.deployment).journal_stream(2)) is None


async def test_the_migrations_give_the_schema_that_the_code_has(deployed: Settings) -> None:
    def differences(connection: Connection) -> list[Any]:
        connection.execute(text(f'SET search_path TO "{deployed.deployment}"'))
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        return list(compare_metadata(context, metadata))

    url = make_url(deployed.require_database_url()).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_a_stream_of_another_deployment_is_refused(settings: Settings) -> None:
    config = journal_config(
        Subjects(settings.deployment), 0, deployment_id="somebody-else", max_bytes=1_000_000, replicas=1
    )
    async with await connect(settings) as bus:
        await create_stream(bus, config)
    with pytest.raises(JournalMismatch, match="metadata is 'somebody-else'"):
        await deploy(settings)


async def test_a_journal_that_was_deleted_is_not_silently_made_again_but_a_run_queue_is(deployed: Settings) -> None:
    subjects = Subjects(deployed.deployment)
    async with await connect(deployed) as bus:
        await bus.jetstream(f"STREAM.DELETE.{subjects.run_stream}")
        await deploy(deployed)
        assert await stream_info(bus, subjects.run_stream) is not None
        await bus.jetstream(f"STREAM.DELETE.{subjects.journal_stream(0)}")
        with pytest.raises(JournalMismatch, match="does not exist any more"):
            await deploy(deployed)


@pytest.mark.parametrize(
    ("field", "value"),
    [("discard", "old"), ("max_age", 3_600_000_000_000), ("max_msgs", 10), ("allow_direct", True), ("metadata", {})],
)
async def test_an_engine_refuses_a_journal_that_it_would_not_have_made(
    deployed: Settings, field: str, value: object
) -> None:
    async with await connect(deployed) as bus:
        await change(bus, Subjects(deployed.deployment).journal_stream(0), **{field: value})
    async with Engine(deployed) as engine:
        with pytest.raises(JournalMismatch, match=f"its {field} is"):
            async with asyncio.timeout(10):
                await engine.failed()


async def test_the_size_of_a_journal_is_the_operators_choice(deployed: Settings, peer: Peer) -> None:
    await change(peer.bus, peer.subjects.journal_stream(0), max_bytes=8_000_000)
    async with running(deployed):
        await peer.register("wf")
        assert (await peer.start("i-1")).error is None


async def test_an_engine_without_a_deployment_says_how_to_make_one(settings: Settings) -> None:
    with pytest.raises(StreamMissing, match="runtara migrate"):
        async with Engine(settings):
            pass
