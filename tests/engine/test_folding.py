"""Folding goes on while a commit is under way, and begins again if that commit fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtara.engine.fold import Fold
from runtara.engine.fold_values import Context, Position
from runtara.protocol.errors import WireError
from runtara.protocol.records import Failed, Pause, Resume, Retry, Signal, Start
from runtara.protocol.subjects import Subjects
from tests.support.peer import Peer
from tests.support.polling import eventually


@asynccontextmanager
async def held_up(peer: Peer) -> AsyncIterator[None]:
    """No commit of partition 0 can end as long as this lasts: its row is locked."""
    async with peer.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT * FROM partitions WHERE id = 0 FOR UPDATE")
        yield


async def is_waiting(peer: Peer) -> bool:
    return bool(await peer.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_what_comes_during_a_commit_is_decided_on_what_that_commit_will_have_left(platform: Peer) -> None:
    held = await platform.started("i-1")
    async with held_up(platform):
        await held.publish(held.step("a"))
        await eventually(lambda: is_waiting(platform))
        await held.publish(held.step("b"))
        await platform.say(Start(instance="i-2", id="s-2", workflow="wf"))
        await platform.say(Start(instance="i-2", id="s-2", workflow="wf"))  # the same again
        await platform.say(Pause(instance="i-2", id="p-2"))
        last = await platform.say(Signal(instance="i-1", id="x-1", name="n"))
    await platform.folded(last)
    assert (await platform.types("i-1"))[-3:] == ["CheckpointSaved", "CheckpointSaved", "SignalReceived"]
    assert await platform.types("i-2") == ["InstanceCreated", "InstanceQueued", "PauseRequested", "InstancePaused"]
    await held.complete()
    await platform.is_sound()


async def test_a_command_that_a_commit_under_way_holds_is_not_carried_out_again(platform: Peer) -> None:
    await platform.start("i-1")
    async with held_up(platform):
        await platform.say(Pause(instance="i-1", id="p-1"))
        await eventually(lambda: is_waiting(platform))
        await platform.say(Resume(instance="i-1", id="r-1"))
        last = await platform.say(Pause(instance="i-1", id="p-1"))
    await platform.folded(last)
    assert (await platform.types("i-1")).count("PauseRequested") == 1
    assert await platform.status("i-1") == "queued"


async def test_keys_that_only_postgres_knows_are_read_when_the_commit_under_way_is_there(platform: Peer) -> None:
    """A retried instance begins without its keys in memory; what its next attempt records is checked against them."""
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    await held.commit(held.record(Failed, error=WireError(code="E", message="no")))
    async with held_up(platform):
        await platform.say(Retry(instance="i-1", id="t-1"))
        await eventually(lambda: is_waiting(platform))
        last = await platform.say(Pause(instance="i-1", id="p-1"))
    await platform.folded(last)
    await platform.ask(Resume(instance="i-1", id="r-1"))
    row = await platform.row("i-1")
    assert row is not None
    again = await platform.claim("i-1", attempt=row["attempt"])
    assert [memo.key for memo in again.answer.memos] == ["a"]
    answer = await again.commit(again.step("a"))
    assert "already" in answer.rejected[0][3]
    await platform.is_sound()


async def test_what_was_folded_on_a_batch_that_cannot_be_committed_is_folded_again(platform: Peer) -> None:
    held = await platform.started("i-1")
    await platform.pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.key = 'poison')"
        " EXECUTE FUNCTION refuse()"
    )
    async with held_up(platform):
        await held.publish(held.step("a"), held.step("poison"), held.step("b"))
        await eventually(lambda: is_waiting(platform))
        await platform.say(Start(instance="i-2", id="s-2", workflow="wf"))
        last = await held.publish(held.step("c"))
    await platform.folded(last)
    types = await platform.types("i-1")
    assert types[-3:] == ["CheckpointSaved", "AttemptLost", "InstanceQueued"]
    assert await platform.types("i-2") == ["InstanceCreated", "InstanceQueued"]
    again = await platform.claim("i-1", attempt=2)
    assert [memo.key for memo in again.answer.memos] == ["a"]
    await again.complete()
    await platform.is_sound()


async def test_a_commit_that_stands_still_holds_up_what_is_read_and_loses_nothing(platform: Peer) -> None:
    """More than one open batch holds: the reader waits for room."""
    held = await platform.started("i-1")
    async with held_up(platform):
        await held.publish(held.step("first"))
        await eventually(lambda: is_waiting(platform))
        for block in range(6):
            last = await held.publish(*(held.step(f"{block}-{n}") for n in range(500)))
    await platform.folded(last)
    assert (await platform.types("i-1")).count("CheckpointSaved") == 3_001
    await held.complete()
    await platform.is_sound()


def test_a_batch_hands_on_only_the_commands_that_it_holds_itself() -> None:
    """What was handed to it is committed by then; else each batch of a tenure would carry all that came before."""
    context = Context(
        partition=0, partitions=1, subjects=Subjects("d"), repeated=frozenset({("t", "i-1", "s-1")}), workflows={}
    )
    fold = Fold(Position(head=0, head_hash=b"", clock=0, journal_owner=None), {}, context)
    assert fold.commands == set()
