"""Claims: one holder at a time, and the history as the answer."""

import asyncio

import msgspec
from msgspec import Raw

from runtara.protocol.api import MemosReply, MemosRequest
from runtara.protocol.ids import new_nonce
from runtara.protocol.messages import ClaimAnswer, Claimed, Superseded
from runtara.protocol.records import Checkpointed, Exited, Registered, Started, Suspended
from tests.support.peer import Held, Peer


async def lost(peer: Peer, held: Held) -> None:
    """The attempt ends as if its process had died, and the runner said so."""
    exited = Exited(instance=held.instance, attempt=held.attempt, worker=held.worker, reason="test")
    sequence = await peer.raw(peer.subjects.runner(peer.partition(held.instance), "default", "r1"), _frame(exited))
    await peer.folded(sequence, peer.partition(held.instance))


def _frame(*records: msgspec.Struct) -> bytes:
    return msgspec.json.encode(records)


def is_repeated(again: ClaimAnswer, first: Claimed) -> bool:
    """The same answer, given later."""
    later = isinstance(again, Claimed) and again.now_us >= first.now_us
    return later and msgspec.structs.replace(again, now_us=first.now_us) == first


async def test_a_claim_is_answered_with_what_the_instance_was_started_with(platform: Peer) -> None:
    await platform.start("i-1", input=b'{"n":1}')
    held = await platform.claim("i-1", nonce="n-1")
    assert held.answer == Claimed(
        instance="i-1", attempt=1, nonce="n-1", version=3, workflow="wf", input=Raw(b'{"n":1}'),
        now_us=(await platform.events("i-1"))[-1]["recorded_at"],
    )  # fmt: skip


async def test_the_first_claim_wins_and_the_other_is_told_superseded(platform: Peer) -> None:
    await platform.start("i-1")
    answers = await asyncio.gather(*(platform.try_claim("i-1", worker=f"w{n}") for n in range(5)))
    assert sorted(type(answer).__name__ for answer in answers) == ["Claimed"] + ["Superseded"] * 4
    assert (await platform.types("i-1")).count("AttemptStarted") == 1


async def test_the_same_claim_again_is_answered_again(platform: Peer) -> None:
    await platform.start("i-1")
    first = await platform.claim("i-1", nonce="n-1")
    assert (await first.commit(first.step("a"))).rejected == []
    again = await platform.try_claim("i-1", nonce="n-1")
    assert is_repeated(again, first.answer)
    assert (await platform.types("i-1")).count("AttemptStarted") == 1


async def test_a_claim_of_an_attempt_that_is_not_queued_is_told_superseded(platform: Peer) -> None:
    await platform.start("i-1")
    assert isinstance(await platform.try_claim("i-1", attempt=2), Superseded)
    assert isinstance(await platform.try_claim("nobody"), Superseded)
    held = await platform.claim("i-1")
    await held.complete()
    assert isinstance(await platform.try_claim("i-1"), Superseded)


async def test_the_same_worker_with_another_nonce_has_started_anew_and_gets_the_next_attempt(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    again = await platform.claim("i-1", attempt=1, worker="w1")
    assert again.attempt == 2
    assert [memo.key for memo in again.answer.memos] == ["a"]
    stale = await held.commit(held.step("b"))
    assert [refused[:3] for refused in stale.rejected] == [("i-1", 1, 2)]
    types = await platform.types("i-1")
    assert types[-4:] == ["CheckpointSaved", "AttemptLost", "InstanceQueued", "AttemptStarted"]


async def test_the_next_attempt_is_answered_with_the_history(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(held.step("a", b"1"), held.step("b", b'{"x":[]}'))
    await lost(platform, held)
    again = await platform.claim("i-1", attempt=2)
    assert [(memo.key, memo.type, bytes(memo.data)) for memo in again.answer.memos] == [
        ("a", "CheckpointSaved", b'{"kind":"step","value":1}'),
        ("b", "CheckpointSaved", b'{"kind":"step","value":{"x":[]}}'),
    ]
    assert not again.answer.more


async def test_a_history_beyond_a_megabyte_comes_in_pages(platform: Peer) -> None:
    held = await platform.started("i-1")
    value = b'"%s"' % (b"x" * 100_000)
    for n in range(35):
        await held.publish(held.step(f"k-{n}", value))
    await held.commit(held.step("last"))
    await lost(platform, held)
    again = await platform.claim("i-1", attempt=2)
    assert again.answer.more
    memos = list(again.answer.memos)
    pages = 1
    more = True
    while more:
        page = await platform.api("memos", MemosRequest(after=memos[-1].version), MemosReply, "i-1")
        memos += page.memos
        more = page.more
        pages += 1
        assert sum(len(memo.data) for memo in page.memos) <= 1_048_576
    assert [memo.key for memo in memos] == [f"k-{n}" for n in range(35)] + ["last"]
    assert pages == 4


async def test_a_single_memo_larger_than_a_page_still_comes(platform: Peer) -> None:
    held = await platform.started("i-1")
    value = b'"%s"' % (b"x" * 3_000_000)
    await held.commit(held.step("small"))
    await held.commit(held.step("large", value))
    await held.commit(held.step("after"))
    await lost(platform, held)
    again = await platform.claim("i-1", attempt=2)
    assert ([memo.key for memo in again.answer.memos], again.answer.more) == (["small"], True)
    page = await platform.api("memos", MemosRequest(after=again.answer.memos[-1].version), MemosReply, "i-1")
    assert ([memo.key for memo in page.memos], page.more) == (["large"], True)
    page = await platform.api("memos", MemosRequest(after=page.memos[-1].version), MemosReply, "i-1")
    assert ([memo.key for memo in page.memos], page.more) == (["after"], False)


async def test_the_pages_hold_nothing_that_came_after_the_claim(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    await lost(platform, held)
    again = await platform.claim("i-1", attempt=2)
    await again.commit(again.step("b"))
    page = await platform.api("memos", MemosRequest(), MemosReply, "i-1")
    assert [memo.key for memo in page.memos] == ["a"]


async def test_an_exit_that_is_reported_for_another_attempt_or_worker_is_ignored(platform: Peer) -> None:
    held = await platform.started("i-1")
    for attempt, worker in ((2, "w1"), (1, "w2"), (0, "w1")):
        exited = Exited(instance="i-1", attempt=attempt, worker=worker, reason="test")
        await platform.folded(await platform.raw(platform.subjects.runner(0, "default", "r1"), _frame(exited)))
    await held.complete()
    assert "AttemptLost" not in await platform.types("i-1")


async def test_a_drained_instance_is_queued_again_at_once_and_free_of_charge(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(held.step("a"))
    await held.commit(held.record(Suspended, reason="released"))
    again = await platform.claim("i-1", attempt=2, worker="w2")
    view = await platform.get("i-1")
    assert (view.restarts, view.worker) == (0, "w2")
    await again.complete()


async def test_a_script_registers_itself_and_resumes_with_another_nonce(platform: Peer) -> None:
    async def register(nonce: str) -> ClaimAnswer:
        inbox = platform.inbox()
        record = Registered(
            instance="i-1", workflow="script", worker="s1", nonce=nonce, input=Raw(b'{"n":1}'), reply=inbox.subject
        )
        await platform.raw(platform.subjects.instance_reports(0, "default", "i-1"), _frame(record))
        return await inbox.next(ClaimAnswer)  # type: ignore[arg-type]  # a union

    first = await register("n-1")
    assert isinstance(first, Claimed)
    step = Checkpointed(instance="i-1", attempt=1, nonce="n-1", seq=1, key="a", data=Raw(b"1"))
    await platform.folded(await platform.raw(platform.subjects.instance_reports(0, "default", "i-1"), _frame(step)))
    assert is_repeated(await register("n-1"), first)
    second = await register("n-2")
    assert isinstance(second, Claimed)
    assert (second.attempt, [memo.key for memo in second.memos]) == (2, ["a"])
    assert await platform.waiting_runs() == []


async def test_a_runner_reserves_and_its_container_takes_over_with_the_token(platform: Peer) -> None:
    await platform.register("boxed", kind="docker")
    await platform.start("i-1", "boxed")

    async def claim(subject: str, **fields: object) -> ClaimAnswer:
        inbox = platform.inbox()
        record = Started(instance="i-1", attempt=1, nonce=new_nonce(), reply=inbox.subject, **fields)  # type: ignore[arg-type]
        await platform.raw(subject, _frame(record))
        return await inbox.next(ClaimAnswer)  # type: ignore[arg-type]  # a union

    container = platform.subjects.instance_reports(0, "default", "i-1")
    reserved = await claim(platform.subjects.runner(0, "default", "r1"), worker="r1", by="runner", token="t-1")
    assert isinstance(reserved, Claimed)
    assert isinstance(await claim(container, worker="box", token="guess"), Superseded)
    assert isinstance(await claim(container, worker="box", token="t-1"), Claimed)
    assert (await platform.types("i-1")).count("AttemptStarted") == 2
