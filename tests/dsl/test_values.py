"""Paths, references, coercions, mappings: on plain data."""

from typing import Any

import pytest

from runtara.dsl.coercions import Kind, coerce
from runtara.dsl.values import MISSING, CannotCoerce, Scope, ref, resolve, resolve_inputs

SCOPE = Scope(
    {
        "data": {"order": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}], "net.price": "9.50"}, "nothing": None},
        "steps": {"fetch": {"outputs": {"ok": True}}, "__error": {"code": "E"}},
        "workflow": {"inputs": {"data": 1}},
    }
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.order.id", 7),
        ("data.order.lines[0].sku", "a"),
        ("data.order.lines[-1].sku", "b"),
        ("data.order.lines.1.sku", "b"),
        ('data.order["net.price"]', "9.50"),
        ("steps.fetch.outputs.ok", True),
        ("steps.__error.code", "E"),
        ("error.code", "E"),
        ("scenario.inputs.data", 1),
        ("workflow.inputs.data", 1),
        ("data.nothing", None),
    ],
)
def test_a_path_leads_to_what_it_names(path: str, value: object) -> None:
    assert ref(path).of(SCOPE) == value


@pytest.mark.parametrize(
    "path", ["data.none", "data.order.lines[2]", "data.order.id.x", "data.nothing.x", "item", "data[0]"]
)
def test_a_path_that_leads_nowhere_is_missing_and_takes_the_default(path: str) -> None:
    assert ref(path).of(SCOPE) is MISSING
    assert resolve(ref(path), SCOPE) is None
    assert ref(path, default=[1]).of(SCOPE) == [1]


def test_a_default_stands_for_null_but_not_for_false() -> None:
    scope = Scope({"data": {"no": False, "null": None}})
    assert ref("data.null", default=5).of(scope) == 5
    assert ref("data.no", default=5).of(scope) is False


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (5, "string", "5"),
        (True, "string", "true"),
        ({"a": [1]}, "string", '{"a":[1]}'),
        ("12", "integer", 12),
        (12.0, "integer", 12),
        ("-3", "integer", -3),
        (True, "integer", 1),
        ("1e3", "number", 1000.0),
        ("9.5", "number", 9.5),
        (False, "number", 0),
        ("TRUE", "boolean", True),
        (0, "boolean", False),
        ('{"a":1}', "json", {"a": 1}),
        ([1], "json", [1]),
        ("aGk=", "file", {"content": "aGk="}),
        ({"content": "aGk=", "filename": "x"}, "file", {"content": "aGk=", "filename": "x"}),
    ],
)
def test_values_are_read_as_the_type_that_is_asked_for(value: Any, kind: Kind, result: object) -> None:
    found = coerce(value, kind)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("12x", "integer"),
        ("", "integer"),
        (1.5, "integer"),
        ("1_000", "number"),
        ("nan", "number"),
        ("9" * 400, "number"),
        ([1], "number"),
        ("yes", "boolean"),
        (2, "boolean"),
        (1.0, "boolean"),
        ("{", "json"),
        ("not base64!", "file"),
        ({"name": "x"}, "file"),
    ],
)
def test_what_would_lose_or_guess_is_refused(value: Any, kind: Kind) -> None:
    with pytest.raises(ValueError):
        coerce(value, kind)


def test_a_bad_coercion_names_the_path() -> None:
    with pytest.raises(CannotCoerce, match=r"data\.order\.lines cannot be read as integer"):
        ref("data.order.lines", type="integer", default=3).of(SCOPE)


def test_inputs_tell_missing_from_null() -> None:
    mapping = {
        "a": ref("data.none"),
        "b": ref("data.nothing"),
        "c": {"x": ref("data.none"), "y": [ref("data.order.id")]},
    }
    assert resolve_inputs(mapping, SCOPE) == {"b": None, "c": {"x": None, "y": [7]}}
    assert resolve(mapping, SCOPE) == {"a": None, "b": None, "c": {"x": None, "y": [7]}}
