"""The journal's clock at second hand."""

import pytest

from runtara.infra import clock as clock_module
from runtara.infra.clock import JournalClock

HOUR = 3_600_000_000


class Steady:
    """A steady clock that the test moves."""

    def __init__(self) -> None:
        self.us = 5_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    steady = Steady()
    monkeypatch.setattr(clock_module, "_steady_us", steady)
    return steady


def test_it_goes_on_by_the_steady_clock_from_what_was_seen(steady: Steady) -> None:
    clock = JournalClock()
    clock.seen(100 * HOUR)
    steady.us += 1_500_000
    assert clock.now_us() == 100 * HOUR + 1_500_000
    assert clock.seconds_until(100 * HOUR + 2_000_000) == 0.5
    assert clock.seconds_until(100 * HOUR) == -1.5


def test_what_was_on_its_way_for_longer_does_not_set_it_back(steady: Steady) -> None:
    clock = JournalClock()
    clock.seen(100 * HOUR)
    steady.us += 1_000_000
    clock.seen(100 * HOUR + 700_000)
    assert clock.now_us() == 100 * HOUR + 1_000_000
    clock.seen(100 * HOUR + 1_200_000)
    assert clock.now_us() == 100 * HOUR + 1_200_000


def test_it_follows_a_journal_whose_clock_jumps_ahead(steady: Steady) -> None:
    clock = JournalClock()
    clock.seen(100 * HOUR)
    clock.seen(101 * HOUR)
    steady.us += 10
    assert clock.now_us() == 101 * HOUR + 10


def test_it_stands_still_with_a_journal_whose_clock_was_set_back(steady: Steady) -> None:
    clock = JournalClock()
    clock.seen(101 * HOUR)
    clock.seen(100 * HOUR)
    steady.us += HOUR // 2
    assert clock.now_us() == 101 * HOUR
    steady.us += HOUR
    assert clock.now_us() == 101 * HOUR + HOUR // 2


def test_before_anything_was_seen_only_differences_mean_something(steady: Steady) -> None:
    clock = JournalClock()
    due = clock.now_us() + 3_000_000
    steady.us += 1_000_000
    assert clock.seconds_until(due) == 2.0


def test_the_first_that_is_seen_counts_however_small(steady: Steady) -> None:
    clock = JournalClock()
    clock.seen(1_000)
    assert clock.now_us() == 1_000
