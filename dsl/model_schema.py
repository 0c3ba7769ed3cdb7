"""Declared inputs, outputs and variables. A schema is a map of fields; a JSON Schema object is read into one."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, model_validator

from .model_base import Model


class FieldType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"
    FILE = "file"


class VisibleWhen(Model):
    """When a form shows the field."""

    field: str
    equals: JsonValue = None
    not_equals: JsonValue = None


class SchemaField(Model):
    """A field of data."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"default", "example"})

    type: FieldType = Field(description="what it is; with JSON Schema also [type, null]")
    required: StrictBool = Field(default=False, description="it must be there")
    default: JsonValue = Field(default=None, description="taken where the field is absent")
    description: str | None = Field(default=None, description="for people")
    example: JsonValue = Field(default=None, description="for people")
    enum: list[JsonValue] | None = Field(default=None, description="the values allowed")
    items: "SchemaField | None" = Field(default=None, description="of an array's elements")
    properties: "dict[str, SchemaField] | None" = Field(default=None, description="of an object")
    additional_properties: StrictBool = Field(default=True, description="false: an object has no other fields")
    format: str | None = Field(default=None, description="for forms: date, email, textarea …; not checked")
    min: float | None = Field(default=None, description="of a number; of a text's or an array's length")
    max: float | None = Field(default=None, description="likewise")
    pattern: str | None = Field(default=None, description="a regular expression that a text must match somewhere")
    nullable: StrictBool = Field(default=False, description="null is allowed too")

    label: str | None = Field(default=None, description="for forms")
    placeholder: str | None = Field(default=None, description="for forms")
    order: int | None = Field(default=None, description="for forms")
    visible_when: VisibleWhen | None = Field(default=None, description="for forms")

    @property
    def has_default(self) -> bool:
        return "default" in self.model_fields_set

    @model_validator(mode="before")
    @classmethod
    def _from_json_schema(cls, raw: object) -> object:
        return _field(raw) if isinstance(raw, dict) else raw


_BOUNDS: Final = {
    "minimum": "min", "minLength": "min", "minItems": "min",
    "maximum": "max", "maxLength": "max", "maxItems": "max",
}  # fmt: skip
_ANNOTATIONS: Final = frozenset({"$schema", "$id", "$comment", "title"})
"""What a JSON Schema may carry that checks nothing."""


def is_json_schema(raw: Mapping[str, object]) -> bool:
    """A map of fields has only objects as values, so a text under `type` tells the two apart."""
    return isinstance(raw.get("type"), str) or isinstance(raw.get("$schema"), str)


def _field(raw: dict[str, object]) -> dict[str, object]:
    """JSON Schema's spellings as this language's; what neither knows stays, and is refused."""
    found: dict[str, object] = {}
    for name, value in raw.items():
        if name in _ANNOTATIONS:
            continue
        match name, value:
            case "type", [*types] if "null" in types and len(types) == 2:
                found["type"] = next(other for other in types if other != "null")
                found["nullable"] = True
            case "required", [*_]:
                pass  # told to the properties below
            case "properties", dict():
                found["properties"] = _properties(value, raw.get("required"))
            case "examples", [first, *_]:
                found["example"] = first
            case _:
                found[_BOUNDS.get(name, name)] = value
    return found


def _properties(raw: dict[str, object], required: object) -> dict[str, object]:
    if not isinstance(required, list):
        return raw
    return {
        name: {**field, "required": name in required} if isinstance(field, dict) else field
        for name, field in raw.items()
    }


def _schema(raw: object) -> object:
    """A JSON Schema object as a map of fields. What it demands beyond its fields stands there under its own name, where
    it is refused."""
    if not isinstance(raw, dict) or not is_json_schema(raw):
        return raw
    rest = {
        name: value
        for name, value in raw.items()
        if name not in _ANNOTATIONS | {"type", "required", "properties", "description", "additionalProperties"}
    }
    properties = raw.get("properties")
    return {**rest, **(_properties(properties, raw.get("required")) if isinstance(properties, dict) else {})}


Schema = Annotated[dict[str, SchemaField], BeforeValidator(_schema)]
"""Name → field. Empty: nothing is declared."""


class Variable(Model):
    """A named constant. A plain value stands for itself, without a type."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"value"})

    type: FieldType | None = None
    value: JsonValue
    description: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, raw: object) -> object:
        typed = isinstance(raw, dict) and raw.keys() <= _TYPED and ("value" in raw or raw.get("type") in _TYPES)
        return raw if typed or isinstance(raw, Variable) else {"value": raw}


_TYPED: Final = frozenset({"type", "value", "description"})
_TYPES: Final = [each.value for each in FieldType]

SchemaField.model_rebuild()
