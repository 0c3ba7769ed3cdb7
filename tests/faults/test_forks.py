"""`kill -9` while forks are made and run: one fork for each request, and nothing of the source's is undone."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.api import ForkRequest
from runtara.protocol.errors import WorkflowCancelled
from runtara.protocol.messages import CommandAnswer, Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.peer import Peer, connect_peer
from tests.support.polling import eventually

from . import faulty
from .test_kill_anything import kill
from .test_sagas import is_undone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
STEPS = 8
KEPT = 4  # steps of the source that its forks take over
FORKS = 20


async def waiting_saga(client: Client, folder: Path) -> Handle[None]:
    """A saga that has done all its steps, and waits."""
    source = await client.start(faulty.saga, folder=str(folder), number=0, count=STEPS, fails=False, id="source")

    async def waits() -> bool:
        return any([event.type == "WaitStarted" async for event in source.history()])

    await eventually(waits, within=30)
    return source


async def test_an_engine_killed_between_the_request_and_the_commit_leaves_one_fork(
    site: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    peer: Peer = await stack.enter_async_context(connect_peer(site))
    await waiting_saga(client, tmp_path)
    inbox = peer.inbox()
    request = ForkRequest(id="f-1", instance="fork", reply=inbox.subject)
    async with peer.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT id FROM partitions FOR UPDATE")  # nothing can be committed
        await peer.api("fork", request, bool, "source")
        killed = engine.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert inbox.messages.empty()
        assert await peer.events("fork") == []

    async def answered() -> bool:
        try:
            await peer.api("fork", request, bool, "source")
        except Exception:  # as long as no engine is there
            return False
        return not inbox.messages.empty()

    await eventually(answered, within=40)
    assert (await inbox.next(CommandAnswer)).error is None
    types = await peer.types("fork")
    assert (types.count("InstanceCreated"), types.count("CompensationInherited")) == (1, STEPS)
    assert await peer.pool.fetchval("SELECT count(*) FROM instances") == 2
    await peer.is_sound()


@pytest.mark.parametrize("victim", ["worker", "engine", "nats"])
async def test_forks_do_and_undo_their_own_part_whatever_is_killed(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    source = await waiting_saga(client, tmp_path)

    async def fork(number: int) -> Handle[None]:
        await asyncio.sleep(number * 0.02)  # so that some are made before the kill, some during, some after
        given = {"folder": str(tmp_path), "number": number, "count": STEPS, "fails": False}
        return await client.fork("source", at=f"work/{KEPT}", input=given, new_id=f"fork-{number}", timeout=60)

    making = [asyncio.create_task(fork(number)) for number in range(1, FORKS + 1)]
    moment = STEPS + chance.randrange(FORKS * (STEPS - KEPT) // 2)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    forks = await asyncio.gather(*making)

    async def all_wait() -> bool:
        done = faulty.trace(str(tmp_path))
        return {f"{number} {STEPS - 1}" for number in range(1, FORKS + 1)} <= set(done)

    await eventually(all_wait, within=60)
    await asyncio.gather(*(one.cancel() for one in forks))
    ends = await asyncio.gather(*(one.result(timeout=80) for one in forks), return_exceptions=True)
    assert [type(end) for end in ends] == [WorkflowCancelled] * FORKS, ends
    own = {f"{number} {n}" for number in range(1, FORKS + 1) for n in range(KEPT, STEPS)}
    assert set(faulty.trace(str(tmp_path), "undone")) == own
    assert set(faulty.trace(str(tmp_path))) == own | {f"0 {n}" for n in range(STEPS)}
    assert not (await source.get()).status.is_terminal
    async with connect_peer(site) as peer:
        assert [await is_undone(peer, one.id) for one in forks] == [STEPS - KEPT] * FORKS
        assert await peer.pool.fetchval("SELECT count(*) FROM instances") == FORKS + 1
        assert (await client.get("fork-1")).status is Status.CANCELLED
        await peer.is_sound()
