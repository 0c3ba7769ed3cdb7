"""Records on their way: stored in order, committed on evidence."""

from collections.abc import AsyncIterator

import pytest
from msgspec import Raw

from runtara.infra.writer import JournalWriter
from runtara.protocol.api import PositionReply
from runtara.protocol.errors import Refused
from runtara.protocol.messages import CommitAnswer
from runtara.protocol.records import Checkpointed
from runtara.sdk import outlet as outlet_module
from runtara.sdk.connection import Connection
from runtara.sdk.outlet import Commits, JournalOutlet
from tests.support.polling import eventually

from .conftest import Platform


class Bench:
    def __init__(self, connection: Connection) -> None:
        subjects = connection.subjects
        self.writer = JournalWriter(connection.bus, lambda p: subjects.worker_reports(p, "default", "w-1"))
        self.commits = Commits(connection)
        self.rejected: list[str] = []
        self.outlet = JournalOutlet(connection, self.writer, self.commits, 0, self.rejected.append)


@pytest.fixture
async def bench(connection: Connection) -> AsyncIterator[Bench]:
    bench = Bench(connection)
    await bench.commits.open()
    await connection.bus.flush()  # others answer through connections of their own
    yield bench
    await bench.commits.close()
    await bench.writer.close()


def report(seq: int) -> Checkpointed:
    return Checkpointed(instance="a", attempt=1, nonce="n", seq=seq, key=f"k{seq}", data=Raw(b"1"))


async def test_records_are_stored_in_the_order_of_the_calls(bench: Bench, platform: Platform) -> None:
    sequences = [bench.outlet.send(report(n)) for n in range(1, 1_001)]
    assert [await sequence for sequence in sequences] == sorted(sequence.result() for sequence in sequences)
    await eventually(lambda: len(platform.records) == 1_000)
    assert [record["seq"] for record in platform.records] == list(range(1, 1_001))


async def test_a_commit_is_awaited_until_the_engine_answers_for_that_frame(bench: Bench, platform: Platform) -> None:
    committed = bench.outlet.send_committed(report(1))
    await eventually(lambda: len(platform.records) == 1)
    assert platform.records[0]["reply"] == bench.commits.subject
    await platform.answer(bench.commits.subject, CommitAnswer(partition=0, sequence=7))
    await platform.answer(bench.commits.subject, CommitAnswer(partition=1, sequence=1))
    await eventually(lambda: len(bench.commits._early) == 2)
    assert not committed.done()
    await platform.answer(bench.commits.subject, CommitAnswer(partition=0, sequence=1))
    await committed


async def test_a_rejection_of_this_record_fails_it_and_no_other(bench: Bench, platform: Platform) -> None:
    first, second = bench.outlet.send_committed(report(1)), bench.outlet.send_committed(report(2))
    await eventually(lambda: len(platform.records) == 2)
    sequences = {1, 2} if len(bench.commits._waiting) == 2 else {1}
    for sequence in sequences:
        answer = CommitAnswer(partition=0, sequence=sequence, rejected=[("a", 1, 2, "superseded"), ("b", 1, 1, "x")])
        await platform.answer(bench.commits.subject, answer)
    await first
    with pytest.raises(Refused, match="superseded"):
        await second
    assert bench.rejected == ["superseded"]


async def test_an_answer_that_overtakes_the_acknowledgement_counts(bench: Bench, platform: Platform) -> None:
    await platform.answer(bench.commits.subject, CommitAnswer(partition=0, sequence=1))
    await eventually(lambda: len(bench.commits._early) == 1)
    await bench.outlet.send_committed(report(1))


@pytest.mark.parametrize("outcome", ["accepted", "rejected"])
async def test_without_an_answer_the_position_is_asked(
    bench: Bench, platform: Platform, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet_module, "ASK_AFTER_SECONDS", -10.0)
    outcomes = ["pending", outcome]
    await platform.serve(
        "position", "a", lambda _: PositionReply(outcome=outcomes.pop(0), reason="gone")  # type: ignore[arg-type]
    )  # fmt: skip
    committed = bench.outlet.send_committed(report(4))
    await eventually(lambda: bool(bench.commits._waiting))

    def settled() -> bool:
        bench.commits.sweep()
        return committed.done()

    await eventually(settled)
    assert platform.questions[0] == ("position", {"attempt": 1, "nonce": "n", "seq": 4})
    if outcome == "accepted":
        assert committed.result() is None
    else:
        with pytest.raises(Refused, match="gone"):
            committed.result()


async def test_best_effort_records_travel_too(bench: Bench, platform: Platform) -> None:
    bench.outlet.send_best_effort(report(1))
    await eventually(lambda: len(platform.records) == 1)
