"""How JSON values compare: equal, empty, in order, as a key.

Invariants: true is not 1, 1 is 1.0; the order is total, over all types.
"""

import json
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue

from .models import FilterNonValues, MatchCondition

Order = tuple[int, bool | float | str]
_BOOLEAN, _NUMBER, _TEXT, _OTHER, _NULL = range(5)
_SPACES: Final = (",", ":")


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two JSON values are equal. Python's own `==` takes true for 1."""
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case dict(), dict():
            return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(same, one, other))
        case _:
            return one == other


def is_zero(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def is_nothing(value: JsonValue, options: FilterNonValues) -> bool:
    """Whether `filter-non-values` leaves this out."""
    match value:
        case None:
            return options.filter_null_values
        case str():
            return (
                (options.filter_empty_strings and not value)
                or (options.filter_blank_strings and not value.strip())
                or (options.filter_zero_values and value == "0")
            )
        case _:
            return options.filter_zero_values and is_zero(value)


def is_falsy(value: JsonValue) -> bool:
    """Null, false, 0 and blank texts; arrays and objects are something, even empty ones."""
    return value is None or value is False or is_zero(value) or (isinstance(value, str) and not value.strip())


def matches(value: JsonValue, condition: MatchCondition, candidates: Sequence[JsonValue]) -> bool:
    """Whether `filter` keeps a value. Of an array, one item among the candidates is enough to include it."""
    match condition:
        case "INCLUDES":
            return _is_among(value, candidates)
        case "EXCLUDES":
            return not _is_among(value, candidates)
        case _:
            texts = [one for one in candidates if isinstance(one, str)]
            return isinstance(value, str) and any(_fits(value, condition, one) for one in texts)


def order(value: JsonValue) -> Order:
    """What `sort` compares: booleans, numbers, texts, arrays and objects (by their JSON), null last."""
    match value:
        case None:
            return _NULL, ""
        case bool():
            return _BOOLEAN, value
        case int() | float():
            return _NUMBER, value
        case str():
            return _TEXT, value
        case _:
            return _OTHER, json_text(value)


def key_of(value: JsonValue) -> str:
    """A value as the key of a group."""
    return value if isinstance(value, str) else json_text(value)


def json_text(value: JsonValue) -> str:
    """Compact JSON. Raises ValueError for NaN and infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=_SPACES)


def merged(one: JsonValue, other: JsonValue, *, deep: bool) -> JsonValue:
    """`other` over `one`."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    result = dict(one)
    for key, value in other.items():
        result[key] = merged(one[key], value, deep=deep) if deep and key in one else value
    return result


def _is_among(value: JsonValue, candidates: Sequence[JsonValue]) -> bool:
    if value is None:
        return False
    values = value if isinstance(value, list) else [value]
    return any(same(one, candidate) for one in values for candidate in candidates)


def _fits(value: str, condition: MatchCondition, part: str) -> bool:
    match condition:
        case "STARTS_WITH":
            return value.startswith(part)
        case "ENDS_WITH":
            return value.endswith(part)
        case _:
            return part in value
