"""A worker that loses its connection to NATS for a whole lease, while everybody else keeps theirs."""

import asyncio
import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from runtara.infra.settings import Settings
from runtara.protocol.limits import LEASE_SECONDS
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

from . import faulty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

FLOWS = str(Path(__file__).with_name("faulty.py"))
WORKFLOWS = 5
STEPS = 400


async def last_said(peer: Peer, worker: str) -> int:
    """The journal's sequence of the last frame of `worker`."""
    subject = peer.subjects.worker_reports(0, "default", worker)
    data = await peer.bus.jetstream(f"STREAM.MSG.GET.{peer.subjects.journal_stream(0)}", {"last_by_subj": subject})
    return int(msgspec.json.decode(data)["message"]["seq"])


async def end_of_journal(peer: Peer) -> int:
    data = await peer.bus.jetstream(f"STREAM.INFO.{peer.subjects.journal_stream(0)}")
    return int(msgspec.json.decode(data)["state"]["last_seq"])


async def test_a_worker_cut_off_for_a_lease_gives_up_its_instances_and_what_it_says_later_does_not_count(
    settings: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await deploy(settings)
    folder = str(tmp_path)
    proxy = await stack.enter_async_context(proxy_of(settings.require_nats_url()))
    peer = await stack.enter_async_context(connect_peer(settings))
    await stack.enter_async_context(running(settings))
    cut_off = await stack.enter_async_context(Pool(dataclasses.replace(settings, nats_url=proxy.url), [FLOWS]))
    [(zombie, _)] = cut_off.workers.items()
    pid = cut_off.children[0].pid
    client = await stack.enter_async_context(Client(settings))
    handles = [
        await client.start(faulty.witnessed, folder=folder, number=n, count=STEPS, id=f"batch-{n}")
        for n in range(WORKFLOWS)
    ]
    await eventually(lambda: len(faulty.trace(folder)) >= 50)
    async with Pool(settings, [FLOWS]):
        await proxy.cut()
        await eventually(lambda: len(faulty.trace(folder, "ends")) == WORKFLOWS, within=LEASE_SECONDS + 4)
        assert sorted(faulty.trace(folder, "ends")) == [f"{pid} {n} superseded" for n in range(WORKFLOWS)]
        results = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    assert results == [[n * 1_000 + at for at in range(STEPS)] for n in range(WORKFLOWS)]

    before = await end_of_journal(peer)
    lengths = [len(await peer.events(f"batch-{n}")) for n in range(WORKFLOWS)]
    await proxy.mend()
    await eventually(lambda: _said_more(peer, zombie, before), within=15, what="a word of the zombie")
    await peer.folded(await end_of_journal(peer))
    assert [len(await peer.events(f"batch-{n}")) for n in range(WORKFLOWS)] == lengths
    for n in range(WORKFLOWS):
        events = await peer.events(f"batch-{n}")
        lost = next(event["version"] for event in events if event["type"] == "AttemptLost")
        assert {event["attempt"] for event in events if event["version"] > lost} == {2}
        keys = [event["key"] for event in events if event["type"] == "CheckpointSaved"]
        assert len(keys) == len(set(keys)) == STEPS
    await peer.is_sound()

    again = await client.start(faulty.witnessed, folder=folder, number=9, count=3, id="again")
    assert await again.result(timeout=20) == [9_000, 9_001, 9_002]
    assert faulty.trace(folder, "ends")[-1] == f"{pid} 9 None"  # the same process, and none the worse for it


async def _said_more(peer: Peer, worker: str, before: int) -> bool:
    return await last_said(peer, worker) > before
