"""Leases: a worker that is silent loses what it hosts; troubles of our own are nobody's fault."""

import asyncio
import dataclasses

import msgspec
import pytest

from runtara.engine import outlets
from runtara.infra.settings import Settings
from runtara.protocol.messages import Heartbeat, Hosted, Superseded
from tests.support.peer import Held, Peer
from tests.support.platform import running
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

pytestmark = pytest.mark.usefixtures("quick_watch")


async def beat(peer: Peer, worker: str = "w1", hosted: list[Held] | None = None) -> None:
    listed = None if hosted is None else Hosted(instances=[(h.instance, h.attempt, h.nonce) for h in hosted])
    await peer.bus.publish(
        peer.subjects.heartbeat(peer.tenant, worker), msgspec.json.encode(Heartbeat(worker=worker, hosted=listed))
    )


async def keep_beating(peer: Peer, worker: str = "w1") -> None:
    while True:
        await beat(peer, worker)
        await asyncio.sleep(0.05)


async def test_a_silent_worker_loses_its_instances_and_they_restart_with_growing_pauses(platform: Peer) -> None:
    await platform.start("i-1")
    for attempt in (1, 2):
        await platform.claim("i-1", attempt=attempt, worker=f"w{attempt}")
        await platform.until_type("i-1", "AttemptLost", times=attempt)
    queued = [msgspec.json.decode(e["data"]) for e in await platform.events("i-1") if e["type"] == "InstanceQueued"]
    assert [bool(event.get("not_before_us")) for event in queued] == [False, False, True]
    lost = [msgspec.json.decode(e["data"]) for e in await platform.events("i-1") if e["type"] == "AttemptLost"]
    assert lost[0]["reason"] == "worker lost"


async def test_a_worker_that_is_heard_keeps_what_it_has(platform: Peer) -> None:
    held = await platform.started("i-1")
    beating = asyncio.create_task(keep_beating(platform))
    silent = await platform.start("i-2")
    assert silent.error is None
    await platform.claim("i-2", worker="w2")
    await platform.until_type("i-2", "AttemptLost")  # a whole lease has passed
    await held.complete()
    beating.cancel()
    assert "AttemptLost" not in await platform.types("i-1")


async def test_a_report_is_a_sign_of_life(platform: Peer) -> None:
    held = await platform.started("i-1")
    await platform.start("i-2")
    await platform.claim("i-2", worker="w2")
    n = 0
    while "AttemptLost" not in await platform.types("i-2"):
        n += 1
        assert (await held.commit(held.step(f"k-{n}"))).rejected == []
        await asyncio.sleep(0.02)
    await held.complete()


async def test_a_lost_worker_is_told_that_it_is_superseded(platform: Peer) -> None:
    inbox = platform.inbox()
    await platform.bus.subscribe(
        platform.subjects.control("default", "w1"), lambda msg: inbox.messages.put_nowait(msg.data)
    )
    held = await platform.started("i-1")
    told = await inbox.next(Superseded)
    assert (told.instance, told.attempt, told.nonce) == ("i-1", 1, held.nonce)


async def test_each_claim_that_a_worker_goes_on_with_in_vain_is_told_once_a_second(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many stale reports there are: they are counted, and no rows."""
    monkeypatch.setattr(outlets, "SUPERSEDED_EVERY_SECONDS", 3_600.0)
    held = [await platform.started(f"i-{n}") for n in range(3)]
    for each in held:
        await platform.until_type(each.instance, "AttemptLost")
    told: list[str] = []
    await platform.bus.subscribe(
        platform.subjects.control("default", "w1"),
        lambda msg: told.append(msgspec.json.decode(msg.data, type=Superseded).instance),
    )
    await platform.bus.flush()
    for n in range(50):
        await held[0].publish(*(each.step(f"k-{n}") for each in held))
    await eventually(lambda: len(told) >= 3)
    await platform.commit("w1", held[0].step("last"))
    await platform.bus.flush()
    assert sorted(told) == ["i-0", "i-1", "i-2"]
    assert await platform.rejected() == []


async def test_an_instance_that_two_lists_lack_is_absent(platform: Peer) -> None:
    kept, missing = await platform.started("i-1"), await platform.started("i-2")
    await beat(platform, hosted=[kept])

    async def lost() -> bool:
        await beat(platform, hosted=[kept])
        return "AttemptLost" in await platform.types("i-2")

    await eventually(lost)
    event = next(e for e in await platform.events(missing.instance) if e["type"] == "AttemptLost")
    assert msgspec.json.decode(event["data"])["reason"] == "absent"
    assert await platform.status("i-1") == "running"


async def test_one_list_that_lacks_an_instance_is_not_enough(platform: Peer) -> None:
    held = await platform.started("i-1")
    other = await platform.started("i-2")
    for n in range(4):
        await beat(platform, hosted=[held, other] if n % 2 else [])
        await beat(platform, hosted=[held, other])
    await platform.bus.flush()
    await held.complete()
    assert "AttemptLost" not in await platform.types("i-2")


async def test_what_a_worker_lists_and_has_no_more_is_told_superseded(platform: Peer) -> None:
    held = await platform.started("i-1")
    again = await platform.claim("i-1", attempt=1, worker="w1")
    inbox = platform.inbox()
    await platform.bus.subscribe(
        platform.subjects.control("default", "w1"), lambda msg: inbox.messages.put_nowait(msg.data)
    )
    await platform.bus.flush()
    await beat(platform, hosted=[held, again])
    told = await inbox.next(Superseded)
    assert (told.instance, told.attempt, told.nonce) == ("i-1", 1, held.nonce)


async def test_a_heartbeat_that_is_none_is_ignored(platform: Peer) -> None:
    held = await platform.started("i-1")
    subject = platform.subjects.heartbeat("default", "w1")
    for payload in (b"", b"{", b'{"worker":"w2"}', b'{"worker":"w1","colour":"red"}', b"\xff"):
        await platform.bus.publish(subject, payload)
    await platform.until_type("i-1", "AttemptLost")  # none of it kept the lease
    assert held.attempt == 1
    assert (await platform.start("i-2")).error is None


async def test_time_without_an_engine_does_not_count(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        held = await peer.started("i-1")
        await peer.start("i-2")
        await peer.claim("i-2", worker="w2")
    await asyncio.sleep(0.5)  # longer than a lease
    async with running(deployed):
        beating = asyncio.create_task(keep_beating(peer))
        await peer.until_type("i-2", "AttemptLost")
        await held.complete()
        beating.cancel()
    assert "AttemptLost" not in await peer.types("i-1")


async def test_time_without_a_connection_does_not_count(deployed: Settings, peer: Peer) -> None:
    async with (
        proxy_of(deployed.require_nats_url()) as proxy,
        running(dataclasses.replace(deployed, nats_url=proxy.url)),
    ):
        await peer.register("wf")
        await peer.started("i-1")
        await proxy.cut()
        await asyncio.sleep(0.6)  # two leases
        beating = asyncio.create_task(keep_beating(peer))
        await proxy.mend()
        await peer.start("i-2")
        await peer.claim("i-2", worker="w2")
        await peer.until_type("i-2", "AttemptLost")
        beating.cancel()
        assert "AttemptLost" not in await peer.types("i-1")
