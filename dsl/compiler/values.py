"""Values and conditions of a document as the expressions of generated code."""

from collections.abc import Mapping
from typing import Final, assert_never

from ..model_conditions import Operation, Operator
from ..model_schema import SchemaField
from ..model_values import Composite, Immediate, Reference, Template, Value
from ..paths import parse_destination
from .printing import Array, Call, Node, Table, Text, literal

_ANY_NUMBER: Final = {Operator.AND: "all_of", Operator.OR: "any_of"}


def value(model: Value) -> Node:
    match model:
        case Immediate():
            return literal(model.value)
        case Reference():
            kwargs = {}
            if model.has_default:
                kwargs["default"] = literal(model.default)
            if model.type is not None:
                kwargs["type"] = Text(model.type.value)
            return Call("ref", [Text(model.value)], kwargs)
        case Composite():
            if isinstance(model.value, dict):
                return Table({name: value(item) for name, item in model.value.items()})
            return Array([value(item) for item in model.value])
        case Template():
            return Call("template", [Text(model.value)])
    assert_never(model)


def condition(model: Operation | Value) -> Node:
    if not isinstance(model, Operation):
        return value(model)
    arguments = [condition(argument) for argument in model.arguments]
    if model.op in _ANY_NUMBER:
        return Call(_ANY_NUMBER[model.op], arguments)
    name = Text(model.op.value)
    if len(arguments) == 1:
        return Call("check", [name, *arguments])
    left, right = arguments
    return Call("compare", [left, name, right])


def mapping(model: Mapping[str, Value]) -> Table:
    """A step's input mapping, with dotted destinations as the objects that they build."""
    root: dict[str, Node] = {}
    for destination, item in model.items():
        *outer, last = parse_destination(destination)
        inner = root
        for name in outer:
            found = inner.get(name)
            known = dict(found.items) if isinstance(found, Table) else {}
            inner[name] = Table(known)
            inner = known
        inner[last] = value(item)
    return Table(root)


def fields(schema: Mapping[str, SchemaField]) -> Node:
    """Declared fields, as `schemas.conform` reads them."""
    return literal(
        {name: field.model_dump(mode="json", by_alias=True, exclude_unset=True) for name, field in schema.items()}
    )
