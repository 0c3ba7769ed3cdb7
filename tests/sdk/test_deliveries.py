"""A server that was killed may deliver for the first time what it has delivered before: whom a worker believes."""

from runtara.sdk.deliveries import HOLD_SECONDS, MARGIN_US, Deliveries

SECOND = 1_000_000
AHEAD = 1_790_000_000 * SECOND  # the server's clock, of the machine's steady one


class Clock:
    def __init__(self) -> None:
        self.now = 100 * SECOND

    def __call__(self) -> int:
        return self.now

    @property
    def journal(self) -> int:
        return self.now + AHEAD


def test_while_the_connection_holds_the_servers_count_is_believed() -> None:
    deliveries = Deliveries(Clock())
    assert deliveries.is_first(1, 0)
    assert not deliveries.is_first(2, 0)


def test_behind_a_reconnect_only_what_was_stored_after_it_is_first() -> None:
    clock = Clock()
    deliveries = Deliveries(clock)
    deliveries.answered(clock.journal)
    before = clock.journal
    clock.now += SECOND
    deliveries.reconnected()
    assert not deliveries.is_first(1, before)
    clock.now += MARGIN_US + 1
    assert deliveries.is_first(1, clock.journal)
    assert not deliveries.is_first(2, clock.journal)
    clock.now += 60 * SECOND
    assert not deliveries.is_first(1, before), "however late it comes"


def test_the_least_late_of_what_is_seen_says_what_the_servers_clock_is() -> None:
    clock = Clock()
    deliveries = Deliveries(clock)
    deliveries.answered(clock.journal - 20 * SECOND)  # by a busy engine
    deliveries.delivered(clock.journal - 1_000)
    deliveries.delivered(clock.journal - 30 * SECOND)  # a request that had waited for that long
    stored = clock.journal - 5 * SECOND
    deliveries.reconnected()
    assert not deliveries.is_first(1, stored)


def test_a_worker_that_has_seen_nothing_yet_believes_nothing_behind_a_reconnect() -> None:
    clock = Clock()
    deliveries = Deliveries(clock)
    deliveries.reconnected()
    clock.now += 60 * SECOND
    deliveries.delivered(clock.journal)
    assert not deliveries.is_first(1, clock.journal)
    deliveries.answered(clock.journal)
    assert deliveries.is_first(1, clock.journal)


def test_what_may_be_in_the_hands_of_somebody_who_comes_back_too_is_left_to_him_for_a_moment() -> None:
    clock = Clock()
    deliveries = Deliveries(clock)
    assert not deliveries.is_anothers(2, clock.journal), "a lost worker's, while the connection holds"
    deliveries.answered(clock.journal)
    before = clock.journal
    clock.now += SECOND
    deliveries.reconnected()
    clock.now += 1_000
    assert deliveries.is_anothers(1, before)
    assert deliveries.is_anothers(2, clock.journal)
    assert not deliveries.is_anothers(1, clock.journal), "new, and wanted now"
    clock.now += round(HOLD_SECONDS * SECOND)
    assert not deliveries.is_anothers(1, before)
    assert not deliveries.is_anothers(2, before)
