"""Conditions and a Switch's matching, on plain data."""

import pytest

from runtara.dsl.conditions import all_of, any_of, check, compare, holds, is_true
from runtara.dsl.matching import matches
from runtara.dsl.values import Scope, ref

NOTHING = Scope({})


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_these_values_are_false(value: object) -> None:
    assert not is_true(value)
    assert holds(check("NOT", value), NOTHING)


@pytest.mark.parametrize("value", [True, 1, -1, "0", "false", [0], {"a": None}])
def test_all_others_are_true(value: object) -> None:
    assert is_true(value)


@pytest.mark.parametrize(
    ("left", "op", "right", "result"),
    [
        (5, "EQ", "5", True),
        ("5.0", "EQ", 5, True),
        (5, "EQ", "5x", False),
        ("5", "EQ", "5.0", False),
        (1, "EQ", True, False),
        (True, "EQ", "true", False),
        (None, "EQ", None, True),
        (None, "EQ", 0, False),
        ([1, {"a": True}], "EQ", [1.0, {"a": True}], True),
        ([1], "EQ", [True], False),
        ("a", "NE", "b", True),
        (2, "GT", "10", False),
        ("2", "LT", "10", True),
        ("2026-01-02", "GT", "2026-01-01", True),
        ("b", "GTE", "b", True),
        (3, "LTE", 2.5, False),
        (None, "LT", 1, False),
        ([], "GT", 0, False),
        (True, "GT", 0, False),
        ("order-7", "STARTS_WITH", "order", True),
        (4711, "ENDS_WITH", 11, True),
        (None, "STARTS_WITH", "", False),
        ("abc", "CONTAINS", "b", True),
        ([1, "2"], "CONTAINS", 2, True),
        ({"a": 1}, "CONTAINS", "a", True),
        (5, "CONTAINS", 5, False),
        ("b", "IN", ["a", "b"], True),
        ("b", "IN", None, False),
        ("c", "NOT_IN", ["a", "b"], True),
    ],
)
def test_comparisons(left: object, op: str, right: object, result: bool) -> None:
    assert holds(compare(left, op, right), NOTHING) is result


@pytest.mark.parametrize(
    ("op", "value", "result"),
    [
        ("IS_DEFINED", None, False),
        ("IS_DEFINED", 0, True),
        ("IS_EMPTY", None, True),
        ("IS_EMPTY", "", True),
        ("IS_EMPTY", {}, True),
        ("IS_EMPTY", 0, False),
        ("IS_EMPTY", False, False),
        ("IS_NOT_EMPTY", [0], True),
        ("LENGTH", [], False),
        ("LENGTH", "ab", True),
    ],
)
def test_tests_of_one_value(op: str, value: object, result: bool) -> None:
    assert holds(check(op, value), NOTHING) is result


def test_length_is_a_number_inside_a_comparison() -> None:
    scope = Scope({"data": {"items": [1, 2, 3]}})
    assert holds(compare(check("LENGTH", ref("data.items")), "GT", 2), scope)
    assert holds(compare(check("LENGTH", ref("data.none")), "EQ", 0), scope)


def test_and_and_or_look_no_further_than_they_must() -> None:
    loud = ref("data.x", type="integer")
    scope = Scope({"data": {"x": "no number"}})
    assert not holds(all_of(False, loud), scope)
    assert holds(any_of(1, loud), scope)


@pytest.mark.parametrize(
    ("value", "kind", "match", "result"),
    [
        (5, "BETWEEN", [1, 5], True),
        ("5", "BETWEEN", [1, 4], False),
        ("m", "BETWEEN", ["a", "z"], True),
        (None, "BETWEEN", [0, 1], False),
        (5, "BETWEEN", [1], False),
        (5, "RANGE", {"gte": 5, "lt": 6}, True),
        (5, "RANGE", {"gt": 5}, False),
        (5, "RANGE", {"gt": None, "lte": 5}, True),
        ("x", "RANGE", {"gt": 1}, False),
        ("b", "IN", ["a", "b"], True),
        ("b", "EQ", ["a", "b"], True),
        (["a"], "EQ", ["a"], True),
        ([], "IS_EMPTY", None, True),
        ([1], "IS_EMPTY", False, True),
        ("order-1", "STARTS_WITH", "order", True),
    ],
)
def test_a_switch_matches(value: object, kind: str, match: object, result: bool) -> None:
    assert matches(value, kind, match) is result
