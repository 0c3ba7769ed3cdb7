"""Schedules while engines are killed, and while the clocks of their machines jump."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from runtara.cli.children import Part
from runtara.engine.cadence import SECOND_US, stamp
from runtara.infra.settings import Settings
from runtara.protocol.configuration import ScheduleCreateRequest, ScheduleDefinition, ScheduleRequest, ScheduleView
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

SHIFTING = Path(__file__).with_name("shifting_engine.py")
HOUR = 3_600


async def create(peer: Peer, every_us: int) -> ScheduleView:
    definition = ScheduleDefinition(name="s", workflow="wf", every_us=every_us, overlap="allow", catch_up="all")
    return await peer.api("schedule_create", ScheduleCreateRequest(schedule=definition), ScheduleView)


async def instances(peer: Peer) -> list[str]:
    found = await peer.pool.fetch("SELECT instance FROM events WHERE type = 'InstanceCreated' ORDER BY instance")
    return [row["instance"] for row in found]


async def until_started(peer: Peer, count: int) -> list[str]:
    async def there() -> list[str]:
        found = await instances(peer)
        return found if len(found) >= count else []

    return await eventually(there, within=40, what=f"{count} instances")


async def until_settled(peer: Peer) -> None:
    async def settled() -> bool:
        return await peer.pool.fetchval("SELECT sent = '{}' FROM schedules") is True

    await eventually(settled, within=20)


async def each_time_once(peer: Peer) -> None:
    """Every second from the first due time to the next one has its instance, and none has two."""
    await peer.api("schedule_pause", ScheduleRequest(name="s"), ScheduleView)
    await until_settled(peer)
    row = await peer.pool.fetchrow("SELECT anchor, next_due FROM schedules")
    assert row is not None
    found = await instances(peer)
    dues = [row["anchor"] + n * SECOND_US for n in range(1, len(found) + 1)]
    assert found == [f"s-{stamp(due)}" for due in dues]
    assert row["next_due"] in (dues[-1], dues[-1] + SECOND_US)  # paused while the last one was on its way, or behind it
    assert await peer.rejected() == []
    await peer.is_sound()


async def test_an_engine_that_is_killed_between_a_start_and_its_note_leaves_one_instance(
    settings: Settings, stack: AsyncExitStack
) -> None:
    """Somebody holds the row, so the start is in the journal while its note waits."""
    await deploy(settings)
    peer = await stack.enter_async_context(connect_peer(settings))
    engine = await stack.enter_async_context(Part(settings, ["engine"]))
    await peer.register("wf")
    await create(peer, HOUR * SECOND_US)
    killed = engine.pid
    assert killed is not None
    async with peer.pool.acquire() as holder:
        due = await holder.fetchval("UPDATE schedules SET next_due = anchor RETURNING next_due")
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM schedules FOR UPDATE")
            (instance,) = await until_started(peer, 1)
            os.kill(killed, signal.SIGKILL)
            await holder.execute(  # else what it has asked for would be done when the row is free
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
                f"runtara {killed}",
            )
            assert await holder.fetchval("SELECT next_due FROM schedules") == due
            stored = await last_sequence(peer)

            async def sent_again() -> bool:
                return await last_sequence(peer) > stored and engine.pid not in (None, killed)

            await eventually(sent_again, within=30)
        assert await peer.pool.fetchval("SELECT next_due FROM schedules") == due

    async def noted() -> bool:
        return bool(
            await peer.pool.fetchval("SELECT next_due > $1 AND recent = ARRAY[$2] FROM schedules", due, instance)
        )

    await eventually(noted, within=30)
    assert await peer.types(instance) == ["InstanceCreated", "InstanceQueued"]
    assert await starts_of(peer, instance) >= 2
    assert await peer.rejected() == []
    await peer.is_sound()


async def last_sequence(peer: Peer) -> int:
    """How far the journal is; it has the owner records of every engine, too."""
    data = await peer.bus.jetstream(f"STREAM.INFO.{peer.subjects.journal_stream(0)}")
    return int(msgspec.json.decode(data)["state"]["last_seq"])


async def starts_of(peer: Peer, instance: str) -> int:
    """How often the journal has the start of an instance."""
    stream, found = peer.subjects.journal_stream(0), 0
    for sequence in range(1, await last_sequence(peer) + 1):
        data = await peer.bus.jetstream(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        frame = base64.b64decode(msgspec.json.decode(data)["message"]["data"])
        found += frame.count(b'"type":"start"') if instance.encode() in frame else 0
    return found


async def test_engines_that_are_killed_again_and_again_start_each_once(
    settings: Settings, stack: AsyncExitStack
) -> None:
    await deploy(settings)
    peer = await stack.enter_async_context(connect_peer(settings))
    engines = [await stack.enter_async_context(Part(settings, ["engine"])) for _ in range(2)]
    await peer.register("wf")
    await create(peer, SECOND_US)
    for n, engine in enumerate(engines):
        await until_started(peer, 3 * n + 2)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
    await until_started(peer, 12)
    await each_time_once(peer)


@contextmanager
def shifting_engine(settings: Settings, shift: int) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, str(SHIFTING), str(shift)],
        env={**os.environ, **settings.to_environ()},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ready")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["an hour forwards", "an hour back"])
async def test_a_clock_that_jumps_makes_a_start_neither_early_nor_late_nor_double(
    shift: int, settings: Settings, stack: AsyncExitStack
) -> None:
    """The engine's machine is set before the schedule is made, while it is looked after, and back by its successor."""
    await deploy(settings)
    peer = await stack.enter_async_context(connect_peer(settings))
    with shifting_engine(settings, shift) as engine:
        engine.send_signal(signal.SIGUSR1)
        await peer.register("wf")
        view = await create(peer, SECOND_US)
        assert abs(view.created_at - await journal_us(peer)) < HOUR // 2 * SECOND_US
        await until_started(peer, 3)
        engine.send_signal(signal.SIGUSR1)
        await until_started(peer, 6)
    async with running(settings):
        await until_started(peer, 10)
        await each_time_once(peer)
    assert view.next_due_us is not None
    statement = "SELECT recorded_at FROM events WHERE type = 'InstanceCreated' ORDER BY instance"
    for n, row in enumerate(await peer.pool.fetch(statement)):
        assert row["recorded_at"] >= view.next_due_us + n * SECOND_US


async def journal_us(peer: Peer) -> int:
    data = await peer.bus.jetstream(f"STREAM.INFO.{peer.subjects.journal_stream(0)}")
    moment = datetime.fromisoformat(msgspec.json.decode(data)["ts"][:19]).replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND_US
