"""What is known of data before it is there: its kind, fields and elements. The validator follows references through it.

Invariant: a shape never says more than is certain; what is not known is `UNKNOWN`, and anything may be read of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from .model import Composite, FieldType, Immediate, InputMapping, SchemaField, Value
from .paths import PathError, parse_destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`kind` is a JSON type's name, or None if it is not known. An object with `open` may have further fields."""

    kind: str | None = None
    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    open: bool = True
    items: "Shape | None" = None


UNKNOWN: Final = Shape()
TEXT: Final = Shape(kind="string")
INTEGER: Final = Shape(kind="integer")
NUMBER: Final = Shape(kind="number")
BOOLEAN: Final = Shape(kind="boolean")
OBJECT: Final = Shape(kind="object")
FILE: Final = Shape(kind="object", fields={"content": TEXT, "filename": TEXT, "mimeType": TEXT}, open=False)


def record(fields: Mapping[str, Shape]) -> Shape:
    """An object of exactly these fields."""
    return Shape(kind="object", fields=fields, open=False)


def array(items: Shape = UNKNOWN) -> Shape:
    return Shape(kind="array", items=items)


# following a path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`sure` is false if the path leads beyond what a declared object or array says of itself."""

    shape: Shape
    sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NoField:
    """After `depth` parts there is an object that has no field of that name."""

    depth: int
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class NoWayOn:
    """After `depth` parts there is something that has no such parts at all."""

    depth: int
    shape: Shape


def follow(shape: Shape, parts: Iterable[str | int]) -> Found | NoField | NoWayOn:
    for depth, part in enumerate(parts):
        match shape.kind:
            case None:
                return Found(shape=UNKNOWN)
            case "object" if isinstance(part, str):
                inner = shape.fields.get(part)
                if inner is None and not shape.open:
                    return NoField(depth=depth, shape=shape)
                if inner is None:
                    return Found(shape=UNKNOWN, sure=False)
                shape = inner
            case "array" if isinstance(part, int) or part.isdigit():
                shape = shape.items or UNKNOWN
            case _:
                return NoWayOn(depth=depth, shape=shape)
    return Found(shape=shape)


# where shapes come from


def of_schema(fields: Mapping[str, SchemaField]) -> Shape:
    """Of data with a declared schema; without one nothing is known."""
    return record({name: of_field(declared) for name, declared in fields.items()}) if fields else UNKNOWN


def of_field(declared: SchemaField) -> Shape:
    match declared.type:
        case FieldType.FILE:
            return FILE
        case FieldType.ARRAY:
            return array(UNKNOWN if declared.items is None else of_field(declared.items))
        case FieldType.OBJECT:
            fields = {name: of_field(inner) for name, inner in (declared.properties or {}).items()}
            return Shape(kind="object", fields=fields, open=not fields and declared.additional_properties)
        case _:
            return Shape(kind=declared.type.value)


def of_json(value: object) -> Shape:
    """Of a value that stands in the document."""
    match value:
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return NUMBER
        case str():
            return TEXT
        case dict():
            return record({name: of_json(inner) for name, inner in value.items()})
        case list():
            shapes = [of_json(inner) for inner in value]
            return array(shapes[0] if shapes and all(shape == shapes[0] for shape in shapes) else UNKNOWN)
        case _:
            return UNKNOWN


def of_json_schema(schema: Mapping[str, object], definitions: Mapping[str, object] | None = None) -> Shape:
    """Of what a capability returns. A choice between shapes is not known."""
    known = definitions if definitions is not None else _mapping(schema.get("$defs"))
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = known.get(reference.rpartition("/")[2])
        return of_json_schema(target, _without(known, reference)) if isinstance(target, dict) else UNKNOWN
    choices = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(choices, list):
        real = [choice for choice in choices if isinstance(choice, dict) and choice.get("type") != "null"]
        return of_json_schema(real[0], known) if len(real) == 1 else UNKNOWN
    match schema.get("type"):
        case "object":
            fields = {
                name: of_json_schema(inner, known)
                for name, inner in _mapping(schema.get("properties")).items()
                if isinstance(inner, dict)
            }
            return Shape(kind="object", fields=fields, open=not fields or bool(schema.get("additionalProperties")))
        case "array":
            items = schema.get("items")
            return array(of_json_schema(items, known) if isinstance(items, dict) else UNKNOWN)
        case "string" | "integer" | "number" | "boolean" as kind:
            return Shape(kind=kind)
        case _:
            return UNKNOWN


def _mapping(raw: object) -> Mapping[str, object]:
    return raw if isinstance(raw, dict) else {}


def _without(definitions: Mapping[str, object], reference: str) -> Mapping[str, object]:
    """A type that holds itself is followed once."""
    name = reference.rpartition("/")[2]
    return {other: schema for other, schema in definitions.items() if other != name}


def with_field(shape: Shape, keys: tuple[str, ...], inner: Shape) -> Shape:
    """A record that has `inner` at those keys too."""
    name, rest = keys[0], keys[1:]
    if rest:
        inner = with_field(shape.fields.get(name, record({})), rest, inner)
    return replace(shape, kind="object", fields={**shape.fields, name: inner}, open=False)


# values that are there already


NOT_CONSTANT: Final = object()


def constant(value: Value) -> object:
    """What a value is whatever happens, or `NOT_CONSTANT`."""
    match value:
        case Immediate():
            return value.value
        case Composite(value=dict() as fields):
            inner = {name: constant(part) for name, part in fields.items()}
            return NOT_CONSTANT if NOT_CONSTANT in inner.values() else inner
        case Composite(value=list() as parts):
            elements = [constant(part) for part in parts]
            return NOT_CONSTANT if NOT_CONSTANT in elements else elements
        case _:
            return NOT_CONSTANT


def destinations(mapping: InputMapping) -> dict[str, tuple[str, ...]]:
    """The keys that each destination stands for; what is no path is left out."""
    found = {}
    for text in mapping:
        try:
            found[text] = parse_destination(text)
        except PathError:
            continue
    return found
