"""A journal that is not the one the log was built from: stop, say what is missing, go on only when told to."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from runtara.engine.recovery import adopt_journals
from runtara.engine.service import Engine
from runtara.engine.streams import create_stream, journal_config
from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.errors import JournalMismatch, PartitionLost
from runtara.protocol.frames import encode_record
from runtara.protocol.messages import Superseded
from runtara.protocol.records import ChildRequest, Completed, Options, Parked, Start
from tests.support.peer import Held, Peer
from tests.support.platform import running


async def work(settings: Settings, peer: Peer, *instances: str) -> list[Held]:
    """An engine runs for a while: resident instances with a step each."""
    async with running(settings):
        await peer.register("wf")
        held = [await peer.started(instance) for instance in instances]
        for one in held:
            await one.commit(one.step("a"))
    return held


async def refuses(settings: Settings, reason: str) -> None:
    """A new engine stops with an error that says what is missing, and says how to go on."""
    async with Engine(settings) as engine:
        with pytest.raises(JournalMismatch, match=reason) as caught:
            async with asyncio.timeout(15):
                await engine.failed()
    assert "--accept-journal-loss" in str(caught.value)


async def delete(peer: Peer, partition: int = 0) -> None:
    await peer.bus.jetstream(f"STREAM.DELETE.{peer.subjects.journal_stream(partition)}")


async def recreate(peer: Peer, partition: int = 0) -> None:
    """The same stream again, as somebody would make it by hand, with the right identity and nothing in it."""
    await delete(peer, partition)
    config = journal_config(
        peer.subjects, partition, deployment_id=await peer.pool.fetchval("SELECT id FROM deployment"),
        max_bytes=peer.settings.journal_max_bytes, replicas=1,
    )  # fmt: skip
    await create_stream(peer.bus, config)


async def adopt(peer: Peer) -> list[int]:
    return await adopt_journals(peer.settings, peer.bus)


async def test_a_journal_that_was_deleted_while_the_engine_was_stopped(deployed: Settings, peer: Peer) -> None:
    await work(deployed, peer, "i-1")
    await delete(peer)
    await refuses(deployed, "it does not exist any more")


async def test_a_journal_that_was_made_anew_while_the_engine_was_stopped(deployed: Settings, peer: Peer) -> None:
    await work(deployed, peer, "i-1")
    await recreate(peer)
    await peer.say(*(Start(instance=f"x-{n}", id=f"x-{n}", workflow="wf") for n in range(50)))
    await refuses(deployed, "it was made anew")


async def test_a_journal_that_ends_before_the_cursor(deployed: Settings, peer: Peer) -> None:
    """As one restored from an older back-up, which keeps its creation time."""
    await work(deployed, peer, "i-1")
    await peer.pool.execute("UPDATE partitions SET cursor = cursor + 5")
    await refuses(deployed, r"it ends at \d+, but records up to \d+ are in the event log")


async def test_a_journal_whose_message_at_the_cursor_is_another_one(deployed: Settings, peer: Peer) -> None:
    """As one restored from an older back-up that went on with other records under the same numbers."""
    await work(deployed, peer, "i-1")
    await peer.pool.execute("UPDATE partitions SET fingerprint_time = fingerprint_time - 1000000")
    await refuses(deployed, r"message \d+ is not the one that was folded there")


async def test_a_journal_whose_message_at_the_cursor_is_gone(deployed: Settings, peer: Peer) -> None:
    await work(deployed, peer, "i-1")
    await peer.bus.jetstream(f"STREAM.PURGE.{peer.subjects.journal_stream(0)}", {})
    await refuses(deployed, r"message \d+, the last one folded, is gone")


async def test_a_purged_journal_that_kept_the_message_at_the_cursor_is_known_again(
    deployed: Settings, peer: Peer
) -> None:
    (held,) = await work(deployed, peer, "i-1")
    await peer.bus.jetstream(f"STREAM.PURGE.{peer.subjects.journal_stream(0)}", {"seq": await peer.cursor()})
    async with running(deployed):
        await held.complete()


@pytest.mark.parametrize("how", [delete, recreate])
async def test_a_journal_that_is_wiped_while_the_engine_runs_stops_it(
    deployed: Settings, peer: Peer, how: Callable[[Peer], Awaitable[None]]
) -> None:
    async with Engine(deployed) as engine:
        await peer.register("wf")
        await peer.started("i-1")
        await how(peer)
        with pytest.raises(JournalMismatch, match=r"it does not exist any more|it was made anew"):
            async with asyncio.timeout(15):
                await engine.failed()
    before = await peer.types("i-1")
    await refuses(deployed, "it does not exist any more|it was made anew")
    assert await peer.types("i-1") == before


async def test_an_accepted_loss_gives_every_resident_a_new_attempt_and_the_old_one_counts_for_nothing(
    deployed: Settings, peer: Peer
) -> None:
    one, two = await work(deployed, peer, "i-1", "i-2")
    await delete(peer)
    await refuses(deployed, "it does not exist any more")
    assert await adopt(peer) == [0]
    async with running(deployed):
        answer = await one.commit(one.record(Completed))
        assert [(instance, attempt) for instance, attempt, _, _ in answer.rejected] == [("i-1", 1)]
        for held in (one, two):
            assert (await peer.types(held.instance))[-2:] == ["AttemptLost", "InstanceQueued"]
            again = await peer.claim(held.instance, attempt=2, worker="w9")
            assert [memo.key for memo in again.answer.memos] == ["a"]
            await again.complete()
        assert (await peer.start("i-3")).error is None
    await peer.is_sound()


async def test_what_the_lost_journal_had_others_do_is_sent_before_what_the_new_one_has(
    deployed: Settings, peer: Peer
) -> None:
    await work(deployed, peer, "i-1")
    insert = "INSERT INTO outbox (partition, sequence, n, target, record) VALUES (0, $1, $2, 0, $3)"
    for n, row in enumerate([(-3, 0), (2, 0), (2, 1), (900, 0)]):
        start = Start(instance=f"c-{n}", id=f"s-{n}", tenant="default", workflow="wf")
        await peer.pool.execute(insert, *row, encode_record(start))
    await recreate(peer)
    assert await adopt(peer) == [0]
    left = await peer.pool.fetch("SELECT sequence, record FROM outbox ORDER BY sequence, n")
    assert [msgspec.json.decode(row["record"])["instance"] for row in left] == [f"c-{n}" for n in range(4)]
    assert max(row["sequence"] for row in left) < -3
    async with running(deployed):
        await peer.until_status("c-3", "queued")
        await peer.until_sent()
    await peer.is_sound()


async def test_what_the_new_journal_holds_already_is_folded_after_the_loss_is_accepted(
    deployed: Settings, peer: Peer
) -> None:
    (held,) = await work(deployed, peer, "i-1")
    await recreate(peer)
    await peer.say(Start(instance="i-2", id="s-2", workflow="wf"), Start(instance="i-1", id="start-i-1", workflow="wf"))
    await held.publish(held.step("b"))
    await refuses(deployed, "it was made anew")
    assert await adopt(peer) == [0]
    async with running(deployed):
        await peer.until_status("i-2", "queued")
        assert isinstance(await peer.try_claim("i-1", worker="w2"), Superseded)
    assert await peer.types("i-1") == [
        "InstanceCreated", "InstanceQueued", "AttemptStarted", "CheckpointSaved", "AttemptLost", "InstanceQueued",
    ]  # fmt: skip
    await peer.is_sound()


async def test_nothing_is_adopted_where_nothing_was_lost(deployed: Settings, peer: Peer) -> None:
    (held,) = await work(deployed, peer, "i-1")
    assert await adopt(peer) == []
    async with running(deployed):
        await held.complete()


async def test_a_loss_is_not_accepted_behind_the_back_of_a_running_engine(deployed: Settings, peer: Peer) -> None:
    async with running(deployed):
        await peer.register("wf")
        await peer.start("i-1")
        with pytest.raises(PartitionLost):
            await adopt_journals(deployed, peer.bus)
        assert (await peer.start("i-2")).error is None


@pytest.mark.parametrize("partitions", [3])
async def test_only_the_lost_partition_is_adopted(deployed: Settings, peer: Peer) -> None:
    held = await work(deployed, peer, *(f"i-{n}" for n in range(9)))
    await delete(peer, 1)
    await refuses(deployed, "JOURNAL-1 is not the one")
    assert await adopt(peer) == [1]
    async with running(deployed):
        for one in held:
            lost = peer.partition(one.instance) == 1
            assert ("AttemptLost" in await peer.types(one.instance)) == lost
            if not lost:
                await one.complete()
    await peer.is_sound()


TABLES = ("partitions", "events", "instances", "timers", "outbox", "workflows", "rejected")


async def back_up(peer: Peer) -> None:
    for table in TABLES:
        await peer.pool.execute(f"CREATE TABLE old_{table} AS TABLE {table}")


async def restore(peer: Peer) -> None:
    for table in TABLES:
        await peer.pool.execute(f"TRUNCATE {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE old_{table}")


async def log(peer: Peer) -> list[tuple[object, ...]]:
    """The whole log, hashes included."""
    return [tuple(row) for row in await peer.pool.fetch('SELECT * FROM events ORDER BY partition, "offset"')]


async def cursors(peer: Peer) -> list[int]:
    return [await peer.cursor(partition) for partition in range(peer.settings.partitions)]


async def test_a_database_that_was_restored_from_an_earlier_moment_folds_the_same_events_again(
    deployed: Settings, peer: Peer
) -> None:
    """The journal still holds what came after; what is decided again is what was decided before, to the byte."""
    (held,) = await work(deployed, peer, "i-1")
    await back_up(peer)
    async with running(deployed):
        await held.commit(held.step("b"), held.step("c"))
        await peer.start("i-2")
        other = await peer.claim("i-2", worker="w2")
        await other.complete(b"7")
    after = await log(peer)
    await restore(peer)
    async with running(deployed):
        await held.complete()
    assert (await log(peer))[: len(after)] == after
    await peer.is_sound()


async def registered(peer: Peer, name: str, restarts: int) -> None:
    workflow = Registration(workflow=name, options=Options(restarts=restarts))
    await peer.api("register", RegisterRequest(worker="w1", workflows=[workflow]), RegisterReply)


@pytest.mark.parametrize("partitions", [2])
async def test_a_database_that_was_restored_knows_at_each_start_what_was_registered_then(
    deployed: Settings, peer: Peer
) -> None:
    """Not what is registered now: the workflow was unknown, known, changed and forgotten, and others came meanwhile."""
    await back_up(peer)
    async with running(deployed):
        assert (await peer.start("too-early")).error is not None
        await registered(peer, "wf", restarts=3)
        parent = await peer.started("parent")
        for workflow in ("wh", "wi"):  # neither is known; the hint in the parent's log names what is near
            child = ChildRequest(workflow=workflow)
            await parent.commit(parent.record(Parked, key=workflow, kind="child", child=child))
        await peer.until_type("parent", "ChildFailed", times=2)
        await registered(peer, "wf", restarts=8)
        await registered(peer, "wg", restarts=1)
        for n in range(2, 6):
            assert (await peer.start(f"i-{n}")).error is None
        await peer.until_shown("wf", "wg")
        assert await peer.api("forget", "wf", bool)
        assert (await peer.start("too-late")).error is not None
    after, read = await log(peer), await cursors(peer)
    assert await peer.pool.fetchval("SELECT count(DISTINCT partition) FROM events") == 2
    await restore(peer)
    assert await log(peer) == []
    async with running(deployed):
        for partition, cursor in enumerate(read):
            await peer.folded(cursor, partition)
        assert await log(peer) == after
        assert [view.id for view in await peer.workflows()] == ["wg"]
    await peer.is_sound()
