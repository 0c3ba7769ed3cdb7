"""Who fills a journal or floods `rejected` is shown to the operator; a container that does is cut off."""

import logging
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import msgspec
import pytest

from runtara.engine import purge, quotas
from runtara.engine.quotas import MAX_REJECTED, Quotas
from runtara.engine.service import Engine
from runtara.engine.streams import stream_info, waiting_for
from runtara.infra.settings import Settings
from runtara.protocol.credentials import CredentialView, Kind, ListIssued
from runtara.protocol.subjects import Subjects
from runtara.sdk.credentials import ask, operator
from tests.support.peer import Peer
from tests.support.polling import eventually

from .conftest import VICTIM, Intruder, intrude, issued, of

pytestmark = pytest.mark.timeout(90)
JOURNAL_BYTES = 16 * 1024 * 1024
FRAME_BYTES = 400_000


async def listed(settings: Settings, *, everything: bool = False) -> dict[str, CredentialView]:
    """As `runtara credential list` has it, by user."""
    local = operator(of(settings, VICTIM))
    assert local is not None
    views = await ask(of(settings, VICTIM), local, ListIssued(all=everything), list[CredentialView])
    return {view.user: view for view in views}


async def offence(settings: Settings, user: str) -> CredentialView:
    """Until the list shows one."""

    async def told() -> list[CredentialView]:
        return [view for view in (await listed(settings)).values() if view.user == user and view.offence]

    return (await eventually(told, within=30, what=f"an offence of {user}"))[0]


class Box:
    """A container with a credential for its instance, and what became of it."""

    def __init__(self, intruder: Intruder, subject: str) -> None:
        self.bus = intruder.bus
        self.subject = subject
        self.left: list[bool] = []
        self.bus.on_disconnect.append(lambda: self.left.append(True))

    async def send(self, records: list[Any]) -> None:
        await self.bus.publish_acked(self.subject, msgspec.json.encode(records))


async def box(settings: Settings, peer: Peer, instance: str, stack: AsyncExitStack) -> Box:
    site = of(settings, VICTIM)
    credential = await issued(settings, Kind.CONTAINER, f"box-{instance}", tenant=VICTIM, instance=instance)
    subject = Subjects(settings.deployment).instance_reports(peer.partition(instance), VICTIM, instance)
    return Box(await intrude(site, credential, stack), subject)


async def test_a_container_that_floods_the_platform_with_what_is_refused_is_cut_off(
    deployed: Settings, engine: Engine, peer: Peer, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    bad, good = await box(deployed, peer, "bad", stack), await box(deployed, peer, "good", stack)
    await good.send([{"type": "nonsense"}])
    for _ in range(3):
        await bad.send([{"type": "completed", "instance": "another", "attempt": 1, "nonce": "0" * 32, "seq": 1}] * 500)
    await eventually(lambda: bad.left, what="the end of its connection")
    shown = await offence(deployed, "box-bad")
    assert shown.revoked_at is not None
    assert "1,000 of its records were rejected within a minute" in (shown.offence or "")
    assert shown.offended_at is not None
    assert any("source_over_quota" in record.getMessage() for record in caplog.records)
    assert good.bus.is_connected
    assert "box-good" not in await listed(deployed)
    assert (await listed(deployed, everything=True))["box-good"].offence is None
    kept = await peer.pool.fetchval("SELECT count(*) FROM rejected WHERE subject = $1", bad.subject)
    assert kept == MAX_REJECTED, "what is beyond is counted, not kept"
    assert await peer.pool.fetchval("SELECT count(*) FROM rejected WHERE subject = $1", good.subject) == 1


async def test_a_client_that_floods_the_platform_is_shown_and_goes_on(
    deployed: Settings, engine: Engine, peer: Peer, stack: AsyncExitStack
) -> None:
    credential = await issued(deployed, Kind.CLIENT, "c-1", tenant=VICTIM)
    client = await intrude(of(deployed, VICTIM), credential, stack)
    frame = msgspec.json.encode([{"type": "nonsense"}] * 500)
    for _ in range(3):
        await client.bus.publish_acked(Subjects(deployed.deployment).commands(0, VICTIM, "c-1"), frame)
    shown = await offence(deployed, "c-1")
    assert shown.revoked_at is None
    assert client.bus.is_connected


async def test_a_container_that_fills_the_journal_is_cut_off_and_others_are_not(
    deployed: Settings, engine: Engine, peer: Peer, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be committed: what it has behind the cursor is all that counts."""
    monkeypatch.setattr(quotas, "LOOK_SECONDS", 0.2)
    bad, good = await box(deployed, peer, "bad", stack), await box(deployed, peer, "good", stack)
    partition = peer.partition("bad")
    stream = Subjects(deployed.deployment).journal_stream(partition)
    await shrink(peer, stream)
    await eventually(lambda: owned(peer, partition))
    locked = await asyncpg.connect(deployed.require_database_url())
    transaction = locked.transaction()
    await transaction.start()
    await locked.execute(f'LOCK TABLE "{deployed.deployment}".rejected IN ACCESS EXCLUSIVE MODE')
    try:
        await good.send([{"type": "nonsense"}])
        for _ in range(JOURNAL_BYTES // 3 // FRAME_BYTES):
            await bad.send([{"type": "nonsense", "text": "x" * FRAME_BYTES}])
        assert await waiting_for(peer.bus, stream, bad.subject, after=await peer.cursor(partition)) > 0
        await eventually(lambda: bad.left, within=40, what="the end of its connection")
        assert good.bus.is_connected
    finally:
        await transaction.rollback()
        await locked.close()
    shown = await offence(deployed, "box-bad")
    assert f"% of the journal {stream}" in (shown.offence or "")
    assert shown.revoked_at is not None


async def shrink(peer: Peer, stream: str) -> None:
    info = msgspec.json.decode(await peer.bus.jetstream(f"STREAM.INFO.{stream}"))
    await peer.bus.jetstream(f"STREAM.UPDATE.{stream}", info["config"] | {"max_bytes": JOURNAL_BYTES})


async def owned(peer: Peer, partition: int) -> bool:
    return bool(await peer.pool.fetchval("SELECT journal_owner FROM partitions WHERE id = $1", partition))


async def test_what_is_committed_is_nobodys_burden(
    deployed: Settings, engine: Engine, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy worker keeps the journal's quarter full, which the purge leaves there; that is no offence."""
    monkeypatch.setattr(purge, "KEEP_FRACTION", 1)
    told: list[object] = []

    class Told:
        def offended(self, offence: object) -> None:
            told.append(offence)

    partition = peer.partition("i-1")
    subjects = Subjects(deployed.deployment)
    stream = subjects.journal_stream(partition)
    await shrink(peer, stream)
    for _ in range(JOURNAL_BYTES // 3 // FRAME_BYTES):
        last = await peer.raw(
            subjects.worker_reports(partition, VICTIM, "w-1"), b'[{"text":"%s"}]' % (b"x" * FRAME_BYTES)
        )
    await peer.folded(last, partition)
    info = await stream_info(peer.bus, stream)
    assert info is not None
    looks = Quotas(peer.bus, subjects, partition, Told(), cursor=lambda: last)
    await looks._look(info)
    assert told == []
    before = Quotas(peer.bus, subjects, partition, Told(), cursor=lambda: 0)
    await before._look(info)
    assert len(told) == 1, "all of it, were none committed"
