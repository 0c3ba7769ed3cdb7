"""A policy is a value: which wait follows which try."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.sdk import Permanent, Retry, RetryAfter
from runtara.sdk.retry import MAX_RETRY_AFTER, ONCE, Tries, asked_for


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


@pytest.mark.parametrize(
    "bad", [{"max_attempts": 0}, {"factor": 0.5}, {"jitter": 2}, {"initial": -timedelta(1)}, {"max_retry_after": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Retry(**bad)  # type: ignore[arg-type]


def test_permanent_errors_and_listed_classes_are_not_tried_again() -> None:
    class Declined(Permanent): ...

    policy = Retry(permanent=(KeyError,))
    assert policy.is_permanent(Declined())
    assert policy.is_permanent(KeyError())
    assert not policy.is_permanent(OSError())


def test_a_wait_that_was_asked_for_comes_out_of_a_budget_of_its_own() -> None:
    policy = Retry(max_attempts=2, initial=timedelta(seconds=1), jitter=0, max_retry_after=2)
    busy, tries, waits = RetryAfter(30), Tries(), []
    for error in (busy, OSError(), busy, OSError()):
        wait, tries = policy.wait_after(error, tries._replace(made=tries.made + 1))
        waits.append(wait and wait.total_seconds())
    assert waits == [30, 1, 30, None]
    assert tries == Tries(made=4, asked=2, waited_us=60_000_000)
    wait, _ = policy.wait_after(busy, Tries(made=3, asked=2))
    assert wait == timedelta(seconds=30), "beyond its budget it counts as any error, and is waited for all the same"
    assert policy.wait_after(busy, Tries(made=4, asked=2))[0] is None


def test_all_waits_that_were_asked_for_must_fit_into_their_budget() -> None:
    policy = Retry(max_attempts=1, jitter=0, max_retry_after=None, retry_after_budget=timedelta(seconds=60))
    wait, tries = policy.wait_after(RetryAfter(40), Tries(made=1))
    assert wait == timedelta(seconds=40)
    assert policy.wait_after(RetryAfter(20), tries._replace(made=2))[0] == timedelta(seconds=20)
    assert policy.wait_after(RetryAfter(21), tries._replace(made=2))[0] is None
    with pytest.raises(ValueError, match="retry_after_budget"):
        Retry(retry_after_budget=timedelta(seconds=-1))


def test_jitter_never_makes_a_wait_shorter_than_was_asked_for() -> None:
    waits = [Retry(jitter=0.5).wait_after(RetryAfter(10), Tries(made=1), random=random)[0] for random in (0.0, 1.0)]
    assert waits == [timedelta(seconds=10), timedelta(seconds=15)]


def test_without_a_policy_and_for_permanent_errors_nothing_is_tried_again() -> None:
    class Gone(Permanent):
        retry_after = 5

    assert ONCE.wait_after(RetryAfter(1), Tries(made=1))[0] is None
    assert Retry().wait_after(Gone(), Tries(made=1))[0] is None


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (timedelta(minutes=1), 60), (1.5, 1.5), ("120", 120), (-3, 0), (0, 0), (float("inf"), None), ("1e400", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", -1), (float("nan"), -1), (True, -1), (None, -1), ([], -1), (10**400, -1),
    ],
)  # fmt: skip
def test_any_error_may_say_when_to_come_again_and_what_makes_no_sense_says_nothing(
    asked: object, seconds: float | None
) -> None:
    error = OSError()
    error.retry_after = asked  # type: ignore[attr-defined]
    expected = MAX_RETRY_AFTER if seconds is None else None if seconds < 0 else timedelta(seconds=seconds)
    assert asked_for(error) == expected


def test_an_error_that_calls_itself_permanent_is_not_tried_again() -> None:
    class Gone(Exception):
        permanent = True

    class Perhaps(Exception):
        permanent = "perhaps"

    assert Retry().wait_after(Gone(), Tries(1, 0))[0] is None
    assert Retry().wait_after(Perhaps(), Tries(1, 0))[0] is not None
