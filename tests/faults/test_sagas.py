"""`kill -9` of anything while workflows are undone: all that was registered is undone, last things first, and once."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.cli.children import Part
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from runtara.protocol.errors import WorkflowCancelled, WorkflowFailed
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.peer import Peer, connect_peer
from tests.support.polling import eventually

from . import faulty
from .test_kill_anything import kill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
SAGAS = 20  # that fail, and as many that are cancelled
STEPS = 8


async def is_undone(peer: Peer, id: str) -> int:
    """Check that what was registered was undone in reverse, each once; how much that was."""
    events = await peer.events(id)
    registered = [event["key"] for event in events if event["type"] == "CompensationAdded"]
    keys = [event["key"] for event in events if event["type"] == "CheckpointSaved"]
    undone = [key.removeprefix("~undo/") for key in keys if key.startswith("~undo/")]
    assert undone == registered[::-1], id
    return len(undone)


@pytest.mark.parametrize("victim", ["worker", "engine", "nats"])
async def test_all_is_undone_in_reverse_whatever_is_killed(
    victim: str, chance: random.Random, own_servers: EmbeddedServers, site: Settings, stack: AsyncExitStack,
    tmp_path: Path,
) -> None:  # fmt: skip
    engine = await stack.enter_async_context(Part(site, ["engine"]))
    pool = await stack.enter_async_context(Pool(site, [FLOWS], processes=2))
    client = await stack.enter_async_context(Client(site))
    handles: list[Handle[None]] = [
        await client.start(
            faulty.saga, folder=str(tmp_path), number=number, count=STEPS, fails=number % 2 == 0, id=f"saga-{number}"
        )
        for number in range(2 * SAGAS)
    ]
    moment = chance.randrange(2 * SAGAS * STEPS)
    await eventually(lambda: len(faulty.trace(str(tmp_path))) >= moment, within=60)
    await asyncio.gather(*(handle.cancel() for handle in handles[1::2]))
    moment = chance.randrange(1, SAGAS * STEPS)
    await eventually(lambda: len(faulty.trace(str(tmp_path), "undone")) >= moment, within=60)
    kill(victim, own_servers, engine, pool)
    ends = await asyncio.gather(*(handle.result(timeout=80) for handle in handles), return_exceptions=True)
    assert [type(end) for end in ends] == [WorkflowFailed, WorkflowCancelled] * SAGAS, ends
    async with connect_peer(site) as peer:
        calls = sum([await is_undone(peer, handle.id) for handle in handles])
        await peer.is_sound()
    repeated = len(faulty.trace(str(tmp_path), "undone")) - calls
    assert 0 <= repeated <= (2 * SAGAS if victim == "worker" else 0)  # those that were under way


async def test_what_kills_its_process_every_time_is_undone_before_it_fails(
    site: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await stack.enter_async_context(Part(site, ["engine"]))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    peer = await stack.enter_async_context(connect_peer(site))
    handle = await client.start(faulty.doomed, folder=str(tmp_path), number=1, count=STEPS, id="doomed-1")
    with pytest.raises(WorkflowFailed, match="3 attempts in a row were lost"):
        await handle.result(timeout=80)
    assert await is_undone(peer, "doomed-1") == STEPS
    await peer.is_sound()
    assert len(faulty.trace(str(tmp_path), "deaths")) == 3, "nothing new began once it had been given up"
