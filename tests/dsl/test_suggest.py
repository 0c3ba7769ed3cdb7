"""\"Did you mean\": near enough to be a slip, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.dsl.suggest import distance, nearest

_WORDS = st.text("abc", max_size=6)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 1), ("order", "odrer", 1), ("abc", "abc", 0)],
)
def test_the_distance_counts_slips(left: str, right: str, expected: int) -> None:
    assert distance(left, right) == expected


@given(_WORDS, _WORDS)
def test_the_distance_is_one(left: str, right: str) -> None:
    assert distance(left, right) == distance(right, left)
    assert (distance(left, right) == 0) == (left == right)
    assert abs(len(left) - len(right)) <= distance(left, right) <= max(len(left), len(right))


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("odrer", ["order", "older"], "order"),
        ("http_request", ["http-request", "request"], "http-request"),
        ("ORDER", ["order"], "order"),
        ("x", ["y"], "y"),
        ("x", ["order"], None),
        ("entirely", ["different"], None),
        ("", ["a"], None),
        ("a" * 100, ["a" * 99], None),
        ("ab", ["bb", "aa"], "aa"),
    ],
)
def test_only_what_is_near_is_suggested(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected
