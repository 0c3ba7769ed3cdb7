"""The agent `transform`, capability by capability."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from runtara.agents.transform.paths import parts_of, value_at, with_value
from runtara.agents.transform.values import order, same
from tests.support.perform import perform, refused

PEOPLE: list[JsonValue] = [{"name": "Ann", "at": {"city": "Oslo"}}, {"name": "Bob"}, {"name": None}]
ORDERS: list[JsonValue] = [{"s": "new", "n": 2}, {"s": "paid", "n": 1}, {"s": "new", "n": None}, {"n": 3}]

CASES: list[tuple[str, dict[str, object], JsonValue]] = [
    ("extract", {"value": PEOPLE, "property_path": "name"}, {"values": ["Ann", "Bob", None], "count": 3}),
    ("extract", {"value": PEOPLE, "property_path": "$.at.city"}, {"values": ["Oslo", None, None], "count": 3}),
    ("extract", {"value": [1, 2], "property_path": ""}, {"values": [1, 2], "count": 2}),
    ("extract", {"value": [], "property_path": "a"}, {"values": [], "count": 0}),
    ("get-value-by-path", {"value": {"a": [{"b": 1}, 2]}, "property_path": "a[0].b"}, 1),
    ("get-value-by-path", {"value": {"a": [{"b": 1}, 2]}, "property_path": "a.0.b"}, 1),
    ("get-value-by-path", {"value": {"a": [1, 2]}, "property_path": "a[-1]"}, 2),
    ("get-value-by-path", {"value": {"a.b": {"c": 1}}, "property_path": '["a.b"].c'}, 1),
    ("get-value-by-path", {"value": {"a": 1}, "property_path": "a.b.c"}, None),
    ("get-value-by-path", {"value": {"a": [1]}, "property_path": "a[7]"}, None),
    ("get-value-by-path", {"value": None, "property_path": "a"}, None),
    ("get-value-by-path", {"value": {"a": 1}, "property_path": "$"}, {"a": 1}),
    ("set-value-by-path", {"target": {"a": {"x": 1}}, "property_path": "a.y", "value": 2}, {"a": {"x": 1, "y": 2}}),
    ("set-value-by-path", {"target": {}, "property_path": "a.b[0].c", "value": [1]}, {"a": {"b": [{"c": [1]}]}}),
    ("set-value-by-path", {"target": {"a": [1, 2]}, "property_path": "a[-1]", "value": 9}, {"a": [1, 9]}),
    ("set-value-by-path", {"target": {"a": [1]}, "property_path": "a[1]", "value": 2}, {"a": [1, 2]}),
    ("set-value-by-path", {"target": {"a": 1}, "property_path": "a", "value": None}, {"a": None}),
    ("set-value-by-path", {"target": {"a": 1}, "property_path": "", "value": 2}, {"a": 1}),
    (
        "filter-non-values",
        {"value": [1, None, "", " ", 0, "0", False, []]},
        {"items": [1, None, "", " ", 0, "0", False, []], "count": 8, "removed_count": 0},
    ),
    (
        "filter-non-values",
        {"value": [1, None, ""], "filter_null_values": True},
        {"items": [1, ""], "count": 2, "removed_count": 1},
    ),
    (
        "filter-non-values",
        {"value": ["", " ", "x"], "filter_empty_strings": "true"},
        {"items": [" ", "x"], "count": 2, "removed_count": 1},
    ),
    (
        "filter-non-values",
        {"value": ["", " \t", "x"], "filter_blank_strings": True},
        {"items": ["x"], "count": 1, "removed_count": 2},
    ),
    (
        "filter-non-values",
        {"value": [0, 0.0, "0", False, "00"], "filter_zero_values": True},
        {"items": [False, "00"], "count": 2, "removed_count": 3},
    ),
    (
        "filter-non-values",
        {"value": PEOPLE, "property_path": "at.city", "filter_null_values": True},
        {"items": PEOPLE[:1], "count": 1, "removed_count": 2},
    ),
    ("select-first", {"value": [None, "", " ", 0, False, [], "x"]}, []),
    ("select-first", {"value": [None, 0, "hello"]}, "hello"),
    ("select-first", {"value": []}, None),
    ("select-first", {"value": None}, None),
    ("coalesce", {"values": [None, "", 1]}, ""),
    ("coalesce", {"values": [None, "", 0, 1], "treat_empty_string_as_null": True}, 0),
    ("coalesce", {"values": [None, 0, False], "treat_zero_as_null": True}, False),
    ("coalesce", {"values": [None]}, None),
    ("from-json-string", {"value": '{"a": [1, 2.5, true, null, "ü"]}'}, {"a": [1, 2.5, True, None, "ü"]}),
    ("from-json-string", {"value": str(2**80)}, 2**80),
    ("from-json-string", {"value": ""}, None),
    ("from-json-string", {"value": None}, None),
    ("to-json-string", {"value": {"a": [1, "ü"]}}, {"json": '{"a":[1,"ü"]}', "length": 13}),
    ("to-json-string", {"value": None}, {"json": "null", "length": 4}),
    (
        "filter",
        {"value": ORDERS, "property_path": "s", "match_values": ["new", "x"]},
        {"items": [ORDERS[0], ORDERS[2]], "count": 2, "removed_count": 2},
    ),
    (
        "filter",
        {"value": ORDERS, "property_path": "s", "match_values": "new", "match_condition": "EXCLUDES"},
        {"items": [ORDERS[1], ORDERS[3]], "count": 2, "removed_count": 2},
    ),
    (
        "filter",
        {"value": [1, True, "1", 1.0], "property_path": "$", "match_values": 1},
        {"items": [1, 1.0], "count": 2, "removed_count": 2},
    ),
    (
        "filter",
        {"value": [{"t": ["a", "b"]}, {"t": ["c"]}], "property_path": "t", "match_values": ["b"]},
        {"items": [{"t": ["a", "b"]}], "count": 1, "removed_count": 1},
    ),
    (
        "filter",
        {"value": ["abc", "xbc", 1], "match_values": ["a", 1], "match_condition": "STARTS_WITH"},
        {"items": ["abc"], "count": 1, "removed_count": 2},
    ),
    (
        "filter",
        {"value": ["abc", "abx"], "match_values": "bc", "match_condition": "ENDS_WITH"},
        {"items": ["abc"], "count": 1, "removed_count": 1},
    ),
    (
        "filter",
        {"value": ["abc", "x"], "match_values": "b", "match_condition": "CONTAINS"},
        {"items": ["abc"], "count": 1, "removed_count": 1},
    ),
    ("filter", {"value": None, "match_values": 1}, {"items": [], "count": 0, "removed_count": 0}),
    (
        "sort",
        {"value": ["b", 2, None, True, "a", 1.5, [1], False]},
        {"items": [False, True, 1.5, 2, "a", "b", [1], None], "count": 8},
    ),
    ("sort", {"value": [1, 3, 2], "ascending": False}, {"items": [3, 2, 1], "count": 3}),
    (
        "sort",
        {"value": [{"k": 1, "i": 0}, {"k": 0, "i": 1}, {"k": 1, "i": 2}], "property_path": "k", "ascending": False},
        {"items": [{"k": 1, "i": 0}, {"k": 1, "i": 2}, {"k": 0, "i": 1}], "count": 3},
    ),
    (
        "group-by",
        {"value": ORDERS, "key": "s"},
        {"groups": [[ORDERS[0], ORDERS[2]], [ORDERS[1]]], "group_count": 2},
    ),
    (
        "group-by",
        {"value": [{"k": 1}, {"k": True}, {"k": "1"}, {"k": [1]}], "key": "$.k", "as_map": True},
        {"groups": {"1": [{"k": 1}, {"k": "1"}], "true": [{"k": True}], "[1]": [{"k": [1]}]}, "group_count": 3},
    ),
    ("group-by", {"value": [], "key": "s", "as_map": True}, {"groups": {}, "group_count": 0}),
    (
        "map-fields",
        {
            "source_data": {"first": "Ann", "addr": {"zip": "1"}, "no": None},
            "mappings": {"name": "first", "to.zip": "$.addr.zip", "gone": "x.y", "none": "no"},
        },
        {"result": {"name": "Ann", "to": {"zip": "1"}}, "field_count": 2},
    ),
    ("map-fields", {"source": {"a": 0}, "mapping": {"b": "a"}}, {"result": {"b": 0}, "field_count": 1}),
    ("map-fields", {"source_data": {"a": 0}, "mappings": {}}, {"result": {}, "field_count": 0}),
    (
        "merge",
        {"values": [{"a": {"x": 1, "y": 1}}, None, {"a": {"y": 2}, "b": [1]}]},
        {"a": {"x": 1, "y": 2}, "b": [1]},
    ),
    ("merge", {"values": [{"a": {"x": 1}}, {"a": {"y": 2}}], "deep": False}, {"a": {"y": 2}}),
    ("merge", {"values": [{"a": [1, 2]}, {"a": [3]}]}, {"a": [3]}),
    ("merge", {"values": [{"a": 1}, {"a": None}]}, {"a": None}),
    ("merge", {"values": []}, {}),
    ("append", {"array": [1], "item": {"a": 1}}, {"array": [1, {"a": 1}], "length": 2}),
    ("append", {"array": [], "item": None}, {"array": [None], "length": 1}),
    (
        "flat-map",
        {"value": [{"i": [1, 2]}, {"i": "x"}, {}, {"i": [[3]]}], "property_path": "i"},
        {"items": [1, 2, [3]], "count": 3},
    ),
    ("array-length", {"value": [1, 2]}, {"length": 2, "is_array": True}),
    ("array-length", {"value": "äöü"}, {"length": 3, "is_array": False}),
    ("array-length", {"value": {"a": 1}}, {"length": 1, "is_array": False}),
    ("array-length", {"value": None}, {"length": 0, "is_array": False}),
    ("array-length", {"value": 5}, {"length": 0, "is_array": False}),
    ("ensure-array", {"value": [1]}, {"items": [1], "count": 1, "was_array": True}),
    ("ensure-array", {"value": {"a": 1}}, {"items": [{"a": 1}], "count": 1, "was_array": False}),
    ("ensure-array", {"value": None}, {"items": [], "count": 0, "was_array": False}),
]


@pytest.mark.parametrize(("capability", "inputs", "expected"), CASES)
def test_each_capability(capability: str, inputs: dict[str, object], expected: JsonValue) -> None:
    found = perform("transform", capability, inputs)
    assert json.dumps(found) == json.dumps(expected)  # true is not 1 here


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("extract", {"value": [], "property_path": "a..b"}, "TRANSFORM_INVALID_PATH"),
        ("extract", {"value": [], "property_path": "a["}, "TRANSFORM_INVALID_PATH"),
        ("extract", {"value": [], "property_path": "a]b"}, "TRANSFORM_INVALID_PATH"),
        ("extract", {"value": [], "property_path": "[0]a"}, "TRANSFORM_INVALID_PATH"),
        ("extract", {"value": [], "property_path": ".".join("a" * 101)}, "TRANSFORM_INVALID_PATH"),
        ("extract", {"value": None, "property_path": "a"}, "STEP_REQUIRED_INPUT_NULL"),
        ("extract", {"value": "text", "property_path": "a"}, "STEP_INVALID_INPUT"),
        ("extract", {"property_path": "a"}, "STEP_REQUIRED_INPUT_MISSING"),
        ("set-value-by-path", {"target": {"a": 1}, "property_path": "a.b", "value": 1}, "TRANSFORM_NOT_SETTABLE"),
        ("set-value-by-path", {"target": {"a": [1]}, "property_path": "a[5]", "value": 1}, "TRANSFORM_NOT_SETTABLE"),
        ("set-value-by-path", {"target": {"a": [1]}, "property_path": "a.x", "value": 1}, "TRANSFORM_NOT_SETTABLE"),
        ("from-json-string", {"value": "{"}, "TRANSFORM_JSON_PARSE_ERROR"),
        ("from-json-string", {"value": "[NaN]"}, "TRANSFORM_JSON_PARSE_ERROR"),
        ("from-json-string", {"value": "-Infinity"}, "TRANSFORM_JSON_PARSE_ERROR"),
        ("from-json-string", {"value": "[" * 100_000}, "TRANSFORM_JSON_PARSE_ERROR"),
        ("from-json-string", {"value": "9" * 10_000}, "TRANSFORM_JSON_PARSE_ERROR"),
        ("to-json-string", {"value": float("nan")}, "TRANSFORM_JSON_SERIALIZE_ERROR"),
        ("filter", {"value": [], "match_values": 1, "match_condition": "LIKE"}, "STEP_INVALID_INPUT"),
        ("filter", {"value": []}, "STEP_REQUIRED_INPUT_MISSING"),
        ("map-fields", {"source": {"a": 1}, "mapping": {"": "a"}}, "TRANSFORM_INVALID_PATH"),
        ("map-fields", {"source": {"a": 1}, "mapping": {"x": "a", "x.y": "a"}}, "TRANSFORM_NOT_SETTABLE"),
        ("merge", {"values": [{"a": 1}, [1]]}, "TRANSFORM_INVALID_INPUT"),
    ],
)
def test_what_each_capability_refuses(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("transform", capability, inputs).code == code


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
values: st.SearchStrategy[JsonValue] = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(values)
def test_a_value_is_itself_and_its_json(value: JsonValue) -> None:
    assert same(value, value)
    text = perform("transform", "to-json-string", {"value": value})
    assert isinstance(text, dict)
    assert same(perform("transform", "from-json-string", {"value": text["json"]}), value)


@given(st.lists(values, max_size=6), st.booleans())
def test_any_values_have_an_order(items: list[JsonValue], ascending: bool) -> None:
    found = perform("transform", "sort", {"value": items, "ascending": ascending})
    assert isinstance(found, dict)
    assert isinstance(found["items"], list)
    keys = [order(item) for item in found["items"]]
    assert all(one <= other if ascending else one >= other for one, other in pairwise(keys))
    assert sorted(map(repr, found["items"])) == sorted(map(repr, items))


names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\"), min_size=1, max_size=4)


@given(st.lists(names | st.just(0), min_size=1, max_size=4), values)
def test_what_is_set_at_a_path_is_found_there(parts: list[str | int], value: JsonValue) -> None:
    path = "".join(f"[{json.dumps(part, ensure_ascii=False)}]" for part in parts)
    assert parts_of(path) == tuple(parts)
    assert value_at(with_value(None, tuple(parts), value), tuple(parts)) == value
