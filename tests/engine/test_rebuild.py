"""`audit rebuild`: projections made again from the log, while engines run and workers report."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Raw

from runtara.engine.rebuild import Rebuilt, rebuild
from runtara.protocol.records import Completed, Parked, Pause, Resume, Retry
from tests.support.peer import Held, Peer
from tests.support.polling import eventually

Tamper = Callable[[Peer], Awaitable[object]]
HOUR_US = 3_600_000_000


async def rebuilt(peer: Peer) -> Rebuilt:
    async with peer.pool.acquire() as connection:
        return await rebuild(connection)


async def rows(peer: Peer) -> list[dict[str, object]]:
    found = await peer.pool.fetch("SELECT * FROM instances ORDER BY tenant, instance")
    timers = await peer.pool.fetch("SELECT * FROM timers ORDER BY tenant, instance, version")
    return [dict(row) for row in (*found, *timers)]


def sql(statement: str) -> Tamper:
    return lambda peer: peer.pool.execute(statement)


@pytest.fixture
async def log(platform: Peer) -> Peer:
    """One that ended, one that runs, one that sleeps for an hour, one that is queued."""
    done, running, sleeping = [await platform.started(f"i-{n}") for n in range(3)]
    await done.commit(done.step("k"))
    await done.complete(b'"done"')
    await running.commit(running.step("k"))
    await sleeping.commit(sleeping.record(Parked, key="nap", kind="sleep", for_us=HOUR_US))
    assert (await platform.start("i-3")).error is None
    return platform


async def test_projections_that_are_right_are_left_alone_and_no_engine_notices(log: Peer) -> None:
    before, owner = await rows(log), await log.pool.fetchval("SELECT owner FROM partitions")
    done = await rebuilt(log)
    assert (done.instances, done.differed, done.findings) == (4, 0, [])
    assert done.events == await log.pool.fetchval("SELECT count(*) FROM events")
    assert await rows(log) == before
    assert await log.pool.fetchval("SELECT owner FROM partitions") == owner


@pytest.mark.parametrize(
    "tamper",
    [
        sql("UPDATE instances SET status = 'failed', result = '1' WHERE instance = 'i-0'"),
        sql("UPDATE instances SET labels = '{\"a\":\"b\"}', workflow = 'x', created_at = 1, parent = 'p', hash = 'h'"),
        sql("UPDATE instances SET state = '{\"version\":1}' WHERE instance = 'i-1'"),
        sql("DELETE FROM instances"),
        sql("UPDATE instances SET instance = 'i-9' WHERE instance = 'i-2'"),
        sql("DELETE FROM timers"),
        sql("UPDATE timers SET due = 1, version = 7"),
        sql("INSERT INTO timers VALUES ('default', 'nobody', 3, 0, 17)"),
    ],
    ids=["columns", "fixed columns", "state", "all rows", "a stranger", "no timers", "timers", "a strange timer"],
)
async def test_what_differs_is_what_the_log_says_again(log: Peer, tamper: Tamper) -> None:
    before = await rows(log)
    await tamper(log)
    assert (await log.replay()).findings != []
    done = await rebuilt(log)
    assert (done.differed > 0, done.findings) == (True, [])
    await log.is_sound()
    assert without_evidence(await rows(log)) == without_evidence(before)


def without_evidence(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "dispatched"} for row in found]


async def test_evidence_stays_where_there_is_a_row(log: Peer) -> None:
    await log.pool.execute("UPDATE instances SET dispatched = 1, workflow = 'x' WHERE instance = 'i-3'")
    await rebuilt(log)
    row = await log.row("i-3")
    assert row is not None
    assert (row["workflow"], row["dispatched"]) == ("wf", 1)


@pytest.mark.usefixtures("quick_watch")
async def test_an_instance_whose_row_was_lost_goes_on(log: Peer) -> None:
    """Its engine takes over again with an empty cache, and asks for a worker again, since the evidence is gone."""
    await log.pool.execute("DELETE FROM instances WHERE instance IN ('i-1', 'i-3')")
    await rebuilt(log)
    queued = await log.claim("i-3")
    await queued.complete()
    assert "default.wf.i-3.1" in " ".join(await log.waiting_runs())
    assert (await log.ask(Pause(instance="i-2", id="p"))).error is None
    assert (await log.ask(Resume(instance="i-2", id="r"))).error is None
    await log.is_sound()


async def test_an_instance_whose_events_do_not_hold_is_left_and_named(log: Peer) -> None:
    await log.pool.execute("UPDATE events SET actor = 'ghost' WHERE instance = 'i-0' AND version = 4")
    await log.pool.execute("UPDATE instances SET status = 'failed' WHERE instance IN ('i-0', 'i-1')")
    done = await rebuilt(log)
    (finding,) = done.findings
    assert (finding.instance, finding.version) == ("i-0", 4)
    assert await log.status("i-0") == "failed"
    assert await log.status("i-1") == "running"


@pytest.mark.parametrize("partitions", [3])
async def test_everything_completes_although_rows_were_changed_and_rebuilt_meanwhile(platform: Peer) -> None:
    """Twelve instances report while somebody damages their rows and they are made again."""
    held = [await platform.started(f"i-{n}") for n in range(12)]
    stop = asyncio.Event()
    runs = [asyncio.create_task(run(one, stop)) for one in held]
    for damage in (
        "UPDATE instances SET restarts = 17, labels = '{\"a\":\"b\"}', wake_at = 1, input = '3'",
        "UPDATE instances SET workflow = 'x', parent = 'p', created_at = 3; INSERT INTO timers SELECT tenant, instance,"
        " 1, partition, 99999999999999999 FROM instances",
        "UPDATE instances SET updated_at = 1, attempt = 9, worker = 'nobody'",
        "UPDATE instances SET state = '{\"version\":1}', version = 1, hash = 'x', status = 'completed'",
    ):
        await platform.pool.execute(damage)
        assert (await rebuilt(platform)).findings == []
        await eventually_sound(platform)
    stop.set()
    await asyncio.gather(*runs)
    await platform.pool.execute("DELETE FROM instances; DELETE FROM timers")  # who reports meanwhile is not known
    assert (await rebuilt(platform)).findings == []
    for one in held:
        await platform.until_status(one.instance, "completed")
    await platform.is_sound()
    assert {len(await platform.rejected())} == {0}


async def run(one: Held, stop: asyncio.Event) -> None:
    """Steps one after another, each committed, until told to stop."""
    n = 0
    while not stop.is_set():
        answer = await one.commit(one.step(f"k-{n}"))
        assert answer.rejected == []
        n += 1
    await one.publish(one.record(Completed, result=Raw(b"1")))


async def eventually_sound(peer: Peer) -> None:
    async def is_sound() -> bool:
        await peer.is_sound()
        return True

    await eventually(is_sound)


async def test_a_retry_meets_what_was_rebuilt(log: Peer) -> None:
    await log.pool.execute("UPDATE instances SET status = 'failed', state = '{\"version\":3}' WHERE instance = 'i-0'")
    await rebuilt(log)
    answer = await log.ask(Retry(instance="i-0", id="r-1"))
    assert answer.error is not None
    assert "it is completed" in answer.error.message
