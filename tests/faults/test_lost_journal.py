"""A journal that was wiped stops the engine with an error; only somebody's word lets it go on."""

import asyncio

import pytest

from runtara.cli.parts import connect
from runtara.engine.recovery import adopt_journals
from runtara.engine.service import Engine
from runtara.engine.setup import create_deployment
from runtara.infra.settings import Settings
from runtara.protocol.errors import JournalMismatch
from runtara.protocol.messages import Registration
from runtara.protocol.subjects import Subjects
from runtara.sdk.client import Client

pytestmark = pytest.mark.timeout(60)


async def start(settings: Settings, id: str) -> None:
    async with Client(settings) as client:
        await client.start("wf", id=id)


async def test_a_journal_wiped_while_the_engine_runs_stops_it_until_the_loss_is_accepted(settings: Settings) -> None:
    stream = Subjects(settings.deployment).journal_stream(0)
    async with await connect(settings) as bus:
        await create_deployment(settings, bus)
        async with Engine(settings) as engine:
            await bus.call(
                Subjects(settings.deployment).api("default", "register"),
                {"worker": "w1", "workflows": [Registration(workflow="wf")]},
                object,
            )
            await start(settings, "before")
            await bus.jetstream(f"STREAM.DELETE.{stream}")
            with pytest.raises(JournalMismatch, match="does not exist any more"):
                await asyncio.wait_for(engine.failed(), 30)
        with pytest.raises(JournalMismatch, match="does not exist any more"):
            await create_deployment(settings, bus)
        async with Engine(settings) as engine:
            with pytest.raises(JournalMismatch):
                await asyncio.wait_for(engine.failed(), 30)
        assert await adopt_journals(settings, bus) == [0]
        async with Engine(settings):
            await start(settings, "after")
            async with Client(settings) as client:
                assert {view.id for view in (await client.list()).instances} == {"before", "after"}
