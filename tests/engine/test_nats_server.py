"""A NATS server on which accounts would not keep tenants apart is refused, by `migrate` and by engines."""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtara.engine.service import Engine
from runtara.engine.streams import stream_info
from runtara.infra.settings import Settings
from runtara.protocol.errors import UnfitServer
from runtara.protocol.subjects import Subjects
from tests.support.nats import OwnNats, own_nats
from tests.support.platform import connect, deploy
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of

LENIENT = "strict: false"


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[OwnNats]:
    async with own_nats(tmp_path, "") as nats:
        yield nats


@pytest.fixture
def own(settings: Settings, nats: OwnNats) -> Settings:
    """On that server; it has no accounts, which makes no difference here."""
    return dataclasses.replace(settings, nats_url=nats.url, nats_keys=None)


@pytest.fixture
async def older(settings: Settings) -> AsyncIterator[Proxy]:
    """The session's server, which says that it is of last year."""
    async with proxy_of(settings.require_nats_url()) as proxy:
        proxy.alter = lambda data: re.sub(rb'"version":"2\.\d+\.', rb'"version":"2.11.', data)
        yield proxy


async def restart(nats: OwnNats, *, jetstream: str) -> None:
    await nats.server.stop()
    nats.configure("", jetstream=jetstream)
    await nats.server.start()


async def owns(settings: Settings) -> bool:
    """Whether an engine has taken the partition, and said so in the journal."""
    async with await connect(settings) as bus:
        info = await stream_info(bus, Subjects(settings.deployment).journal_stream(0))
    return info is not None and info.state.last_seq > 0


async def test_migrate_makes_nothing_on_a_server_that_overlooks_what_it_does_not_know(
    own: Settings, nats: OwnNats
) -> None:
    await restart(nats, jetstream=LENIENT)
    with pytest.raises(UnfitServer, match=re.escape(f"{nats.url} cannot be used")) as refused:
        await deploy(own)
    assert "take `strict: false` out" in str(refused.value)
    async with await connect(own) as bus:
        assert await stream_info(bus, Subjects(own.deployment).journal_stream(0)) is None


async def test_an_engine_stops_when_its_server_comes_back_without_being_strict(own: Settings, nats: OwnNats) -> None:
    await deploy(own)
    async with Engine(own) as engine:
        await eventually(lambda: owns(own))
        await restart(nats, jetstream=LENIENT)
        with pytest.raises(UnfitServer, match="not strict"):
            async with asyncio.timeout(20):
                await engine.failed()


async def test_an_older_server_is_refused_by_its_version(settings: Settings, older: Proxy) -> None:
    through = dataclasses.replace(settings, nats_url=older.url)
    with pytest.raises(UnfitServer, match=r"it is nats-server 2\.11: use 2\.12 or later"):
        await deploy(through)
    await deploy(settings)
    with pytest.raises(UnfitServer, match=r"use 2\.12 or later"):
        async with Engine(through):
            pass
