"""What is recorded comes back, and what could not come back is refused by name."""

import dataclasses
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.protocol.errors import StateNotRepresentable, StateTooLarge
from runtara.protocol.limits import MAX_STATE_BYTES
from runtara.sdk.values import Codec, canonical, codec_like, encode, to_plain


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: str
    price: Decimal
    _note: str = ""


class Parcel(msgspec.Struct):
    order: Order
    weight: float


class Customer(pydantic.BaseModel):
    name: str
    since: date
    limit: Decimal = Decimal("1.50")


ORDER = Order("o-1", Decimal("9.90"), _note="hidden, not lost")
CASES: list[tuple[Any, Any]] = [
    (ORDER, Order),
    (Parcel(ORDER, 2.5), Parcel),
    (Customer(name="Ann", since=date(2026, 1, 2)), Customer),
    ([Customer(name="Ann", since=date(2026, 1, 2))], list[Customer]),
    (None, Customer | None),
    (Decimal("1.20"), Decimal),
    (UUID("6f1c1d0e-8a3b-4c55-9a52-0e5d8b0c7a11"), UUID),
    (datetime(2026, 1, 2, 3, 4, 5, 600, UTC), datetime),
    (date(2026, 1, 2), date),
    (timedelta(days=3, seconds=1.5), timedelta),
    (b"\x00\xff", bytes),
    ({1, 2, 3}, set[int]),
    (Colour.RED, Colour),
    ({1: "a"}, dict[int, str]),
    ((1, "a"), tuple[int, str]),
    (3, float),
    (None, None),
]


@pytest.mark.parametrize(("value", "annotation"), CASES, ids=lambda case: str(case)[:30])
def test_a_value_comes_back_in_its_annotated_type(value: Any, annotation: Any) -> None:
    text = encode(value, key="k")
    read = Codec(annotation).as_recorded(value, text, key="k")
    assert read == value
    assert Codec(annotation).decode(text, key="k") == read


def test_without_an_annotation_plain_json_comes_back() -> None:
    class Point(NamedTuple):
        x: int
        y: int

    point = Point(1, 2)
    assert Codec(Any).as_recorded({"at": point}, encode({"at": point}, key="k"), key="k") == {"at": [1, 2]}


def test_a_state_comes_back_as_a_record_of_its_class_or_as_plain_json() -> None:
    assert codec_like(ORDER).decode(encode(ORDER, key="k"), key="k") == ORDER
    assert codec_like({"a": 1}).decode(b'{"a":1}', key="k") == {"a": 1}


cycle: list[object] = []
cycle.append(cycle)
deep: list[object] = []
for _ in range(125):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"a": [1, math.nan]}, "$.a[1]", "nan"),
        (Parcel(ORDER, math.inf), "$.weight", "inf"),
        ([None, {"b c": -math.inf}], "$[1]['b c']", "-inf"),
        ({"a": object()}, "$.a", "object"),
        ({(1, 2): 3}, "$[(1, 2)]", "key"),
        ({math.nan: 3}, "$[nan]", "nan"),
        (["\ud800"], "$[0]", "UTF-8"),
        ({"x": 2**70}, "$.x", "64-bit"),
        (deep, "$", "nested"),
        (cycle, "$[0]", "nested"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(StateNotRepresentable) as caught:
        encode(value, key="order-17")
    assert caught.value.attributes["path"].startswith(path)  # type: ignore[attr-defined]
    assert reason in str(caught.value)
    assert "order-17" in str(caught.value)


def test_brackets_inside_text_are_no_nesting() -> None:
    assert len(encode(["[{" * 200], key="k")) == 404


def test_a_state_above_the_limit_is_refused_naming_key_and_limit() -> None:
    with pytest.raises(StateTooLarge, match=r"'big'.*67,108,864"):
        encode("x" * MAX_STATE_BYTES, key="big")


def test_a_record_that_does_not_fit_its_annotation_is_an_error_that_says_so() -> None:
    with pytest.raises(StateNotRepresentable, match="no int when read back"):
        Codec(int).decode(b'"x"', key="k")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc/~", max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(plain)
def test_plain_json_comes_back_equal(value: Any) -> None:
    assert Codec(Any).as_recorded(value, encode(value, key="k"), key="k") == value


@given(st.dictionaries(st.text("abc", max_size=3), st.integers(0, 9), max_size=5), st.randoms())
def test_canonical_text_does_not_depend_on_order(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical(dict(items), to_plain) == canonical(value, to_plain)
    assert canonical(set(items), to_plain) == canonical(frozenset(value.items()), to_plain)
