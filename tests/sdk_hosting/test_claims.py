"""Claims on a real journal: kept alive, acknowledged late, sent again, answered once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtara.infra.writer import JournalWriter
from runtara.protocol.api import MemosReply
from runtara.protocol.messages import ClaimAnswer, Claimed, Memo, Superseded
from runtara.protocol.records import NO_DATA
from runtara.sdk import claims as claims_module
from runtara.sdk.claims import Claims, with_all_memos
from runtara.sdk.connection import Connection
from tests.support.polling import eventually

from .conftest import Platform


class Request:
    """A run request in hand, and what was said of it."""

    def __init__(self, reply: str = "ack-1") -> None:
        self.reply = reply
        self.said: list[str] = []

    async def ack(self) -> None:
        self.said.append("ack")

    async def nak(self) -> None:
        self.said.append("nak")

    async def in_progress(self) -> None:
        self.said.append("in progress")


@pytest.fixture
async def claims(connection: Connection) -> AsyncIterator[Claims]:
    subjects = connection.subjects
    writer = JournalWriter(connection.bus, lambda p: subjects.worker_reports(p, "default", "w-1"))
    claims = Claims(connection, writer, "w-1")
    await claims.open()
    await connection.bus.flush()  # answers come over another connection
    acks = asyncio.create_task(claims.acknowledge())
    yield claims
    acks.cancel()
    await asyncio.gather(acks, return_exceptions=True)
    await writer.close()


def claimed(nonce: str, **fields: object) -> Claimed:
    claim = {"instance": "a", "attempt": 1, "nonce": nonce, "version": 3, "now_us": 5_000_000}
    return Claimed(**{"workflow": "greet", "input": NO_DATA, **claim, **fields})  # type: ignore[arg-type]


async def test_a_request_is_acknowledged_once_its_claim_is_in_the_journal(claims: Claims, platform: Platform) -> None:
    request, answers = Request(), list[ClaimAnswer]()
    claim = claims.take("a", 1, request, answers.append)  # type: ignore[arg-type]
    await eventually(lambda: request.said == ["ack"])
    await eventually(lambda: len(platform.records) == 1)
    record = platform.records[0]
    assert (record["type"], record["attempt"], record["worker"]) == ("started", 1, "w-1")
    assert (record["nonce"], record["reply"]) == (claim.nonce, claims.subject)
    await platform.answer(claims.subject, claimed(claim.nonce))
    await eventually(lambda: [type(answer) for answer in answers] == [Claimed])


async def test_a_claim_that_is_not_answered_is_sent_again_unchanged(
    claims: Claims, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "RESEND_SECONDS", 0.0)
    answers = list[ClaimAnswer]()
    claim = claims.take("a", 1, Request(), answers.append)  # type: ignore[arg-type]
    await eventually(lambda: claim.is_stored)
    await claims.sweep()
    await eventually(lambda: len(platform.records) == 2)
    assert platform.records[0] == platform.records[1]
    await platform.answer(claims.subject, Superseded(instance="a", attempt=1, nonce=claim.nonce))
    await eventually(lambda: [type(answer) for answer in answers] == [Superseded])
    await claims.sweep()
    await platform.answer(claims.subject, Superseded(instance="a", attempt=1, nonce=claim.nonce))
    await eventually(lambda: claims.ignored == 1)
    assert len(answers) == 1
    assert len(platform.records) == 2


async def test_an_answer_for_another_claim_or_that_is_none_is_ignored(claims: Claims, platform: Platform) -> None:
    answers = list[ClaimAnswer]()
    claim = claims.take("a", 1, Request(), answers.append)  # type: ignore[arg-type]
    await eventually(lambda: claim.is_stored)  # behind its subscription: the server knows that, too
    await platform.answer(claims.subject, claimed("another"))
    await platform.answer(claims.subject, claimed("another", attempt=2))
    await platform.bus.publish(claims.subject, b"\xff{")
    await platform.answer(claims.subject, {"type": "claimed", "surprise": 1})
    await eventually(lambda: claims.ignored == 4)
    assert answers == []


async def test_a_request_is_kept_alive_while_its_claim_waits_and_given_back_if_it_never_gets_in(
    connection: Connection,
) -> None:
    subject = "nobody.listens.here"
    writer = JournalWriter(connection.bus, lambda _: subject)
    claims = Claims(connection, writer, "w-1")
    request = Request()
    claims.take("a", 1, request, lambda _: None)  # type: ignore[arg-type]
    again = Request("ack-2")
    assert claims.take_again("a", 1, again)  # type: ignore[arg-type]
    assert not claims.take_again("a", 2, Request("ack-3"))  # type: ignore[arg-type]
    await claims.sweep()
    await claims.release()
    await writer.close()
    assert request.said == []
    assert again.said == ["in progress", "nak"]


async def test_a_history_in_pages_is_read_to_the_version_of_the_claim(
    connection: Connection, platform: Platform
) -> None:
    memos = [Memo(key=f"k{n}", version=n, type="CheckpointSaved", data=NO_DATA) for n in range(1, 8)]

    def page(question: dict[str, int]) -> MemosReply:
        rest = [memo for memo in memos if memo.version > question["after"]]
        return MemosReply(memos=rest[:2], more=len(rest) > 2)

    await platform.serve("memos", "a", page)
    whole = await with_all_memos(connection, claimed("n", version=6, memos=memos[:2], more=True))
    assert [memo.version for memo in whole.memos] == [1, 2, 3, 4, 5, 6]
    assert not whole.more
    assert 5_000_000 < whole.now_us < 10_000_000  # what reading took is not waited for again
