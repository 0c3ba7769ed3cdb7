"""Timers: fired once, through the journal, not before they are due, whoever owns the partition by then."""

import time

import msgspec
import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import WireError
from runtara.protocol.frames import encode_frame
from runtara.protocol.records import Exited, Owner, Parked, StepFailure, Suspended, TimerDue
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


async def lose(peer: Peer, held: Held) -> None:
    """The attempt's process has ended, and the runner says so."""
    await peer.report_as_runner(Exited(instance=held.instance, attempt=held.attempt, worker=held.worker, reason="test"))


def jump(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """The wall clock of this process, and with it the engine's, but neither NATS's nor Postgres's."""
    seconds_now, nanoseconds_now = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: seconds_now() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds_now() + seconds * 1_000_000_000)


@pytest.mark.parametrize("seconds", [3_600, -3_600], ids=["forwards", "backwards"])
async def test_timers_are_on_time_and_fire_once_though_the_engines_clock_jumps_by_an_hour(
    platform: Peer, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """A sleep, a step that waits for its next try, and a restart's back-off; nothing else happens meanwhile."""
    restarts = await platform.started("restarts")
    await lose(platform, restarts)
    tries, sleeps = await platform.started("tries"), await platform.started("sleeps")
    error = WireError(code="OSError", message="not yet")
    await tries.commit(tries.record(StepFailure, key="k", n=1, error=error, for_us=1_200_000))
    await sleep(sleeps, 1.2)
    await lose(platform, await platform.claim("restarts", attempt=2))
    waiting = {name: await timer_of(platform, name) for name in ("restarts", "tries", "sleeps")}

    jump(monkeypatch, seconds)
    for name, (_, due) in waiting.items():
        await platform.until_type(name, "TimerFired")
        [fired] = [event for event in await platform.events(name) if event["type"] == "TimerFired"]
        assert 0 <= fired["recorded_at"] - due < 500_000
    assert await platform.pool.fetchval("SELECT count(*) FROM timers") == 0
    await platform.claim("restarts", attempt=3)
    await platform.is_sound()


@pytest.mark.parametrize("seconds", [3_600, -3_600], ids=["ahead", "behind"])
async def test_an_engine_whose_clock_is_wrong_by_an_hour_fires_what_its_predecessor_left_on_time(
    deployed: Settings, peer: Peer, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    async with running(deployed):
        await peer.register("wf")
        await sleep(await peer.started("i-1"), 1.5)
        _, due = await timer_of(peer, "i-1")
    jump(monkeypatch, seconds)
    async with running(deployed):
        await peer.until_type("i-1", "TimerFired")
    [fired] = [event for event in await peer.events("i-1") if event["type"] == "TimerFired"]
    assert 0 <= fired["recorded_at"] - due < 1_000_000
    await peer.is_sound()


async def test_a_lease_that_lies_further_ahead_than_any_can_was_given_by_a_clock_that_was_wrong(
    deployed: Settings, peer: Peer
) -> None:
    """Postgres's clock went back by an hour while nobody owned the partition."""
    await peer.pool.execute("UPDATE partitions SET lease_until = now() + interval '1 hour', owner = 'ended'")
    async with running(deployed):
        await peer.until_owner_is_not(None)


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
