"""What is known of data: never more than is certain."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.dsl.shapes import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    TEXT,
    UNKNOWN,
    Found,
    Shape,
    array,
    follow,
    of_json,
    of_json_schema,
    record,
)

TREE: dict[str, Any] = {
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "name": {"type": "string"}}}},
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, UNKNOWN),
        ({"type": "string"}, TEXT),
        ({"type": ["string", "null"]}, UNKNOWN),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, INTEGER),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, UNKNOWN),
        ({"type": "array", "items": {"type": "boolean"}}, array(BOOLEAN)),
        ({"type": "array"}, array()),
        ({"type": "object"}, Shape(kind="object")),
        ({"type": "object", "properties": {"x": {"type": "number"}}}, record({"x": NUMBER})),
        ({"$ref": "#/$defs/Nowhere"}, UNKNOWN),
        (TREE, record({"next": UNKNOWN, "name": TEXT})),
    ],
)
def test_a_json_schema_is_read_as_far_as_it_is_certain(schema: dict[str, Any], expected: Shape) -> None:
    assert of_json_schema(schema) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=2), inner, max_size=3),
)


@given(_JSON, st.data())
def test_whatever_is_there_can_be_followed(value: object, data: st.DataObject) -> None:
    """No path into a value is called wrong by the value's own shape."""
    shape, here, parts = of_json(value), value, []
    while isinstance(here, dict | list) and here and data.draw(st.booleans()):
        key: Any = data.draw(
            st.sampled_from(list(here) if isinstance(here, dict) else list(range(-len(here), len(here))))
        )
        here = here[key]
        parts.append(key)
    assert isinstance(follow(shape, parts), Found)
