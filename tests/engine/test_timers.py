"""Timers: fired once, through the journal, not before they are due, whoever owns the partition by then."""

import msgspec

from runtara.infra.settings import Settings
from runtara.protocol.frames import encode_frame
from runtara.protocol.records import Owner, Parked, Suspended, TimerDue
from tests.support.peer import Held, Peer
from tests.support.platform import running
from tests.support.polling import eventually


async def sleep(held: Held, seconds: float, key: str = "nap") -> None:
    """Sleep durably, and leave memory meanwhile."""
    await held.commit(
        held.record(Parked, key=key, kind="sleep", for_us=int(seconds * 1e6)),
        held.record(Suspended, reason="parked", keys=(key,)),
    )


async def timer_of(peer: Peer, instance: str) -> tuple[int, int]:
    """(id, due) of its only timer."""
    row = await peer.pool.fetchrow("SELECT version, due FROM timers WHERE instance = $1", instance)
    assert row is not None
    return row["version"], row["due"]


async def test_a_sleeping_instance_is_woken_when_it_is_due_and_not_before(platform: Peer) -> None:
    held = await platform.started("i-1")
    await sleep(held, 0.3)
    assert await platform.status("i-1") == "sleeping"
    _, due = await timer_of(platform, "i-1")
    await platform.until_status("i-1", "queued")
    fired = next(event for event in await platform.events("i-1") if event["type"] == "TimerFired")
    assert 0 <= fired["recorded_at"] - due < 250_000
    again = await platform.claim("i-1", attempt=2)
    assert [(memo.key, memo.type) for memo in again.answer.memos][-1] == ("nap", "WaitResolved")
    assert await platform.pool.fetchval("SELECT count(*) FROM timers") == 0


async def test_a_hundred_timers_due_at_once_all_fire_once(platform: Peer) -> None:
    for n in range(100):
        await sleep(await platform.started(f"i-{n}"), 1.0)

    async def all_awake() -> bool:
        count = await platform.pool.fetchval("SELECT count(*) FROM instances WHERE status = 'queued'")
        return bool(count == 100)

    await eventually(all_awake, within=20)
    assert await platform.pool.fetchval("SELECT count(*) FROM events WHERE type = 'TimerFired'") == 100


async def test_a_timer_fires_although_its_engine_is_gone_by_then(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        await sleep(await peer.started("i-1"), 0.2)
    async with running(deployed):
        await peer.until_status("i-1", "queued")


async def test_a_timer_that_is_fired_twice_or_too_early_or_is_none_changes_nothing(platform: Peer) -> None:
    held = await platform.started("i-1")
    await sleep(held, 60)
    timer, _ = await timer_of(platform, "i-1")
    owner = await platform.owner() or ""
    for id in (timer, timer, timer + 1, 1):
        record = TimerDue(instance="i-1", tenant="default", owner=owner, timer=id)
        await platform.folded(await platform.engine_says(0, record))
    assert await platform.status("i-1") == "sleeping"
    await platform.folded(
        await platform.engine_says(0, TimerDue(instance="nobody", tenant="default", owner=owner, timer=1))
    )


async def test_what_an_engine_says_that_owns_nothing_any_more_has_no_effect(platform: Peer) -> None:
    """A due timer, named under the token of a former owner: it counts neither before nor after a re-fold."""
    held = await platform.started("i-1")
    stale = await platform.owner()
    await platform.pool.execute("UPDATE partitions SET lease_until = now() - interval '1 s', owner = 'stopped'")
    before = await platform.types("i-1")
    await platform.until_owner_is_not(stale)
    lost = {"instance": "i-1", "tenant": "default", "attempt": 1, "worker": "w1"}
    for token in (stale, "never-heard-of"):
        frame = [{"type": "worker_lost", "owner": token, **lost}, {"type": "absent", "owner": token, **lost}]
        await platform.folded(await platform.raw(platform.subjects.engine(0), msgspec.json.encode(frame)))
    assert await platform.types("i-1") == before
    await held.complete()


async def test_an_owner_record_counts_from_its_place_in_the_journal_on(platform: Peer) -> None:
    """Before it the old owner's losses count, behind it only the new one's: the order decides, not the clock."""
    for n in range(2):
        await platform.started(f"i-{n}")
    owner = await platform.owner()
    lost = [
        {"type": "worker_lost", "owner": owner, "instance": f"i-{n}", "tenant": "default", "attempt": 1, "worker": "w1"}
        for n in range(2)
    ]
    usurper = msgspec.json.decode(encode_frame([Owner(instance="", token="usurper")]))
    frame = msgspec.json.encode([lost[0], *usurper, lost[1]])
    await platform.folded(await platform.raw(platform.subjects.engine(0), frame))
    assert [await platform.status(f"i-{n}") for n in range(2)] == ["queued", "running"]
