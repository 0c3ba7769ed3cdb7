"""A policy is a value: which wait follows which try."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.sdk import Permanent, Retry


def test_waits_grow_by_the_factor_up_to_the_limit_and_end_with_the_last_try() -> None:
    policy = Retry(max_attempts=5, initial=timedelta(seconds=1), factor=3, max_delay=timedelta(seconds=10))
    waits = [policy.delay(attempt) for attempt in range(1, 6)]
    assert waits == [timedelta(seconds=s) for s in (1, 3, 9, 10)] + [None]


def test_without_a_limit_of_tries_there_is_always_a_next_one() -> None:
    assert Retry(max_attempts=None, max_delay=timedelta(hours=1)).delay(100_000) == timedelta(hours=1)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_jitter_spreads_around_the_wait(random: float, jitter: float) -> None:
    wait = Retry(initial=timedelta(seconds=100), max_delay=timedelta(seconds=100), jitter=jitter).delay(
        1, random=random
    )
    assert wait is not None
    assert 100 * (1 - jitter) - 1e-5 <= wait.total_seconds() <= 100 * (1 + jitter) + 1e-5


@pytest.mark.parametrize("bad", [{"max_attempts": 0}, {"factor": 0.5}, {"jitter": 2}, {"initial": -timedelta(1)}])
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Retry(**bad)  # type: ignore[arg-type]


def test_permanent_errors_and_listed_classes_are_not_tried_again() -> None:
    class Declined(Permanent): ...

    policy = Retry(permanent=(KeyError,))
    assert policy.is_permanent(Declined())
    assert policy.is_permanent(KeyError())
    assert not policy.is_permanent(OSError())
