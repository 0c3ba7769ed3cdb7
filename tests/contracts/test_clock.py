"""What waits by a clock: the machine's, and one that is moved."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from runtara.engine.memory import VirtualClock
from runtara.infra.clock import JournalClock
from runtara.sdk.ports import Clock

Passing = Callable[[], Awaitable[None]]
SHORT, LONG = 0.01, 60.0


@pytest.fixture(params=["memory", "real"])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = JournalClock() if request.param == "real" else VirtualClock(5_000_000)
    made.seen(5_000_000)
    return made


async def passes(clock: Clock, until: asyncio.Future[None] | asyncio.Task[None]) -> None:
    """Let time pass until then, at least `SHORT`."""
    await asyncio.sleep(0)
    if isinstance(clock, VirtualClock):
        due = clock.next_due()
        assert due is not None
        clock.move_to(due)
    await asyncio.wait_for(until, 5)


async def test_a_callback_comes_when_its_time_has_come_and_not_before(clock: Clock) -> None:
    called = asyncio.get_running_loop().create_future()
    due_us = clock.now_us() + round(SHORT * 1e6)
    clock.call_later(SHORT, called.set_result, None)
    assert not called.done()
    await passes(clock, called)
    assert clock.seconds_until(due_us) <= 0


async def test_a_cancelled_callback_never_comes(clock: Clock) -> None:
    called = asyncio.get_running_loop().create_future()
    clock.call_later(0, pytest.fail, "it was cancelled").cancel()
    clock.call_later(SHORT, called.set_result, None)
    await passes(clock, called)


async def test_a_sleep_ends_in_time_or_is_cancelled(clock: Clock) -> None:
    short, long = (asyncio.ensure_future(clock.sleep(seconds)) for seconds in (SHORT, LONG))
    await passes(clock, short)
    assert not long.done()
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    assert long.cancelled()


async def test_no_time_at_all_is_a_turn_of_the_loop(clock: Clock) -> None:
    async with asyncio.timeout(5):
        await clock.sleep(0)
        await clock.sleep(-1)


async def test_differences_hold_by_both_of_its_readings(clock: Clock) -> None:
    began, began_us = clock.monotonic(), clock.now_us()
    await passes(clock, asyncio.ensure_future(clock.sleep(SHORT)))
    assert SHORT <= round(clock.monotonic() - began, 6) < 5
    assert SHORT * 1e6 <= clock.now_us() - began_us < 5e6
