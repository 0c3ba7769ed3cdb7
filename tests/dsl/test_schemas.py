"""Data against declared fields: every mismatch at once, defaults filled in, and the JSON Schema of it."""

from typing import Any

import pytest

from runtara.dsl.schemas import SchemaMismatch, conform, json_schema

LINE = {
    "type": "object",
    "properties": {"sku": {"type": "string", "required": True}, "n": {"type": "integer", "default": 1}},
}


def mismatches(value: object, fields: dict[str, Any]) -> list[str]:
    with pytest.raises(SchemaMismatch) as caught:
        conform(value, fields, what="data")
    found: list[str] = caught.value.mismatches
    return found


def test_no_fields_declare_nothing() -> None:
    assert conform([1], {}, what="data") == [1]


def test_defaults_are_filled_in_at_every_depth_and_the_data_stay_as_they_were() -> None:
    given = {"lines": [{"sku": "a"}, {"sku": "b", "n": 2}], "more": True}
    fields: dict[str, Any] = {"lines": {"type": "array", "items": LINE}, "limit": {"type": "number", "default": 2.5}}
    found = conform(given, fields, what="data")
    assert found == {"lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}], "more": True, "limit": 2.5}
    assert given == {"lines": [{"sku": "a"}, {"sku": "b", "n": 2}], "more": True}


def test_every_mismatch_is_told_with_its_path() -> None:
    fields = {"lines": {"type": "array", "items": LINE}, "id": {"type": "string", "required": True}}
    assert mismatches({"lines": [{}, {"sku": 5}, 7]}, fields) == [
        "data.lines[0].sku is missing",
        "data.lines[1].sku must be a string, not a number",
        "data.lines[2] must be an object, not a number",
        "data.id is missing",
    ]
    assert mismatches([], fields) == ["data must be an object, not an array"]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ({"type": "integer"}, [1, 2.0], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True], [1, "true"]),
        ({"type": "array"}, [[], [None]], [{}, "a"]),
        ({"type": "object"}, [{}], [[], 1]),
        ({"type": "file"}, ["aGk=", {"content": "aGk="}], [{"name": "x"}, 5]),
        ({"type": "string", "min": 2, "max": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "integer", "min": 0, "max": 9}, [0, 9], [-1, 10]),
        ({"type": "array", "max": 1}, [[1]], [[1, 2]]),
        ({"type": "string", "pattern": "^[a-z]+$"}, ["abc"], ["ABC", ""]),
        ({"type": "string", "enum": ["a", "b"]}, ["a"], ["c"]),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
            [{"a": 1}],
            [{"b": 1}],
        ),
        ({"type": "array", "items": {"type": "string", "nullable": True}}, [["a", None]], [[1]]),
    ],
)
def test_what_fits_a_field_and_what_does_not(field: dict[str, Any], good: list[object], bad: list[object]) -> None:
    for value in good:
        assert conform({"x": value}, {"x": field}, what="data") == {"x": value}
    for value in bad:
        assert len(mismatches({"x": value}, {"x": field})) == 1


def test_null_is_absent_unless_the_field_may_be_null() -> None:
    assert conform({"x": None}, {"x": {"type": "string", "default": "d"}}, what="data") == {"x": "d"}
    assert conform({"x": None}, {"x": {"type": "string", "nullable": True}}, what="data") == {"x": None}
    assert mismatches({"x": None}, {"x": {"type": "string", "required": True}}) == ["data.x is null"]


def test_a_pattern_that_never_ends_is_given_up() -> None:
    assert len(mismatches({"x": "a" * 64 + "!"}, {"x": {"type": "string", "pattern": "^(a|a|aa)+$"}})) == 1


def test_the_text_of_an_error_is_bounded() -> None:
    fields = {f"f{n}": {"type": "string", "required": True} for n in range(50)}
    with pytest.raises(SchemaMismatch, match=r"data\.f9 is missing; and 40 more"):
        conform({}, fields, what="data")


def test_the_json_schema_says_the_same() -> None:
    fields: dict[str, Any] = {
        "id": {"type": "string", "required": True, "pattern": "^o-", "min": 3},
        "lines": {"type": "array", "items": LINE, "max": 9},
        "note": {"type": "string", "nullable": True, "example": "hi"},
        "amount": {"type": "number", "min": 0, "required": True, "default": 1},
    }
    assert json_schema(fields) == {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^o-", "minLength": 3},
            "lines": {
                "type": "array",
                "maxItems": 9,
                "items": {
                    "type": "object",
                    "properties": {"sku": {"type": "string"}, "n": {"type": "integer", "default": 1}},
                    "required": ["sku"],
                },
            },
            "note": {"type": ["string", "null"], "examples": ["hi"]},
            "amount": {"type": "number", "minimum": 0, "default": 1},
        },
        "required": ["id"],
    }
