"""What an execution may rely on, whoever carries its records: the real outlet and its twin."""

import asyncio

import pytest

from runtara.protocol.errors import Refused
from runtara.protocol.records import Completed, Log
from tests.support.polling import eventually

from .seats import INSTANCE, Seat


async def test_records_are_stored_in_the_order_of_the_calls_whatever_their_kind(seat: Seat) -> None:
    first = seat.outlet.send(seat.step("a"))
    second = seat.outlet.send_committed(seat.step("b"))
    third = seat.outlet.send(seat.step("c"))
    assert await first <= await third
    await second
    await seat.until_keys("a", "b", "c")


async def test_the_future_is_open_until_the_journal_has_the_record(seat: Seat) -> None:
    sent = seat.outlet.send(seat.step("a"))
    assert not sent.done()
    assert await sent > 0
    await seat.until_keys("a")


async def test_the_record_of_a_waiter_that_gave_up_travels_nonetheless(seat: Seat) -> None:
    seat.outlet.send(seat.step("a")).cancel()
    seat.outlet.send_committed(seat.step("b")).cancel()
    await seat.outlet.send_committed(seat.step("c"))
    assert await seat.keys() == ["a", "b", "c"]


async def test_a_committed_record_is_in_the_log_when_its_future_resolves(seat: Seat) -> None:
    await seat.outlet.send_committed(seat.step("a"))
    assert await seat.keys() == ["a"]


async def test_a_record_that_the_engine_refuses_fails_and_ends_the_execution(seat: Seat) -> None:
    with pytest.raises(Refused, match="a record is missing"):
        await seat.outlet.send_committed(seat.step("b", skip=1))
    assert len(seat.rejections) == 1
    assert await seat.keys() == []


async def test_the_records_of_a_claim_that_was_taken_away_are_rejected(seat: Seat) -> None:
    await seat.outlet.send_committed(seat.step("a"))
    await seat.log.lose()
    with pytest.raises(Refused, match="does not hold the instance"):
        await seat.outlet.send_committed(seat.step("b"))
    assert len(seat.rejections) == 1
    assert await seat.outlet.send(seat.step("c")) > 0  # the journal takes it, the engine does not
    assert await seat.keys() == ["a"]


async def test_a_rejection_that_nobody_awaits_is_told_and_makes_no_noise(seat: Seat) -> None:
    await seat.log.lose()
    seat.outlet.send_committed(seat.step("a"))
    await eventually(lambda: bool(seat.rejections))


async def test_best_effort_takes_no_number_never_raises_and_ends_nothing(seat: Seat) -> None:
    line = Log(instance=INSTANCE, attempt=1, nonce=seat.nonce, level="info", message="hello")
    seat.outlet.send_best_effort(line)
    seat.outlet.send_best_effort(Log(instance=INSTANCE, attempt=7, nonce="of nobody", level="info", message="lost"))
    await seat.outlet.send_committed(seat.step("a"))
    written = [event for event in await seat.log.events() if event.type == "LogWritten"]
    assert len(written) == 1
    assert seat.rejections == []


async def test_nothing_counts_after_the_last_record(seat: Seat) -> None:
    await seat.outlet.send(seat.report(Completed))
    with pytest.raises(Refused):
        await seat.outlet.send_committed(seat.step("late"))
    assert [event.type for event in await seat.log.events()][-1] == "InstanceCompleted"


async def test_only_reports_have_a_place_to_wait_for(seat: Seat) -> None:
    line = Log(instance=INSTANCE, attempt=1, nonce=seat.nonce, level="info", message="hello")
    with pytest.raises(TypeError, match="only reports"):
        await seat.outlet.send_committed(line)


async def test_many_waiters_are_told_apart(seat: Seat) -> None:
    sent = [seat.outlet.send_committed(seat.step(f"k{n}")) for n in range(50)]
    await asyncio.gather(*sent)
    assert await seat.keys() == [f"k{n}" for n in range(50)]
