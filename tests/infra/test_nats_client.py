"""The short way in and out, on a real server."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from runtara.compose.embedded import EmbeddedServers
from runtara.infra.bus import Bus
from runtara.infra.nats_client import HIGH_WATER_BYTES
from runtara.infra.settings import Settings
from tests.support.platform import connect
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

Seen = list[bytes]


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with await connect(settings) as bus:
        yield bus


async def publish(bus: Bus, count: int, subject: str = "short.way") -> list[bytes]:
    texts = [b"%d" % n for n in range(count)]
    for text in texts:
        await bus.publish(subject, text)
    return texts


async def test_messages_come_in_order_whether_their_handler_waits_or_not(bus: Bus) -> None:
    direct: Seen = []
    waited: Seen = []

    async def wait(msg: Msg) -> None:
        await asyncio.sleep(0)
        waited.append(msg.data)

    await bus.subscribe("short.way", lambda msg: direct.append(msg.data))
    await bus.subscribe("short.way", wait)
    texts = await publish(bus, 500)
    await eventually(lambda: direct == waited == texts)


async def test_a_handler_that_fails_is_logged_and_gets_the_next_message(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: Seen = []

    def fail_once(msg: Msg) -> None:
        seen.append(msg.data)
        if len(seen) == 1:
            raise RuntimeError("the first one")

    await bus.subscribe("short.way", fail_once)
    with caplog.at_level(logging.ERROR):
        texts = await publish(bus, 3)
        await eventually(lambda: seen == texts)
    assert "the first one" in caplog.text


async def test_nothing_comes_after_the_subscription_has_ended(bus: Bus) -> None:
    seen: Seen = []
    subscription = await bus.subscribe("short.way", lambda msg: seen.append(msg.data))
    texts = await publish(bus, 3)
    await eventually(lambda: seen == texts)
    await subscription.unsubscribe()
    await publish(bus, 3)
    await bus.flush()
    assert seen == texts
    assert bus.nats._direct.keys() == {1}  # the bus's own inbox


async def test_what_is_said_while_the_connection_is_down_arrives_when_it_is_back(settings: Settings, bus: Bus) -> None:
    seen: Seen = []
    await bus.subscribe("short.way", lambda msg: seen.append(msg.data))
    await bus.flush()
    async with proxy_of(settings.require_nats_url()) as proxy, await connect(settings, url=proxy.url) as far:
        await proxy.cut()
        await eventually(lambda: not far.is_connected)
        texts = await publish(far, 10)
        await proxy.mend()
        await eventually(lambda: seen == texts)


async def test_a_flood_does_not_pile_up_in_memory(bus: Bus) -> None:
    received = 0

    def count(msg: Msg) -> None:
        nonlocal received
        received += len(msg.data)

    await bus.subscribe("short.way", count)
    block = b"x" * 200_000
    for _ in range(100):
        await bus.publish("short.way", block)
        assert bus.nats._pending_data_size <= 1_300_000
    await eventually(lambda: received == 100 * len(block))


async def test_a_server_that_stands_still_makes_publishers_wait_and_loses_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    block, received = b"x" * 100_000, 0

    def count(msg: Msg) -> None:
        nonlocal received
        received += 1

    async with EmbeddedServers(tmp_path / "data", supervise=False) as servers:
        settings = Settings(nats_url=servers.nats_url, nats_keys=str(servers.nats_keys))
        async with await connect(settings, user="near") as near, await connect(settings, user="far") as far:
            await near.subscribe("short.way", count)
            await near.flush()
            servers.nats.kill(signal.SIGSTOP)
            publishing = asyncio.create_task(publish_blocks(far, block, 200))
            try:
                await eventually(lambda: far.nats._buffered_bytes() > HIGH_WATER_BYTES)
                for _ in range(200):  # long enough for all of it to pile up, if nothing held it back
                    await asyncio.sleep(0)
                assert not publishing.done()
                assert far.nats._buffered_bytes() + far.nats._pending_data_size < 4 * HIGH_WATER_BYTES
            finally:
                servers.nats.kill(signal.SIGCONT)
            await publishing
            await eventually(lambda: received == 200)


async def publish_blocks(bus: Bus, block: bytes, count: int) -> None:
    for _ in range(count):
        await bus.publish("short.way", block)
        await asyncio.sleep(0)
