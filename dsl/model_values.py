"""Values: how a document says where something comes from. Evaluated by the run time, checked by the validator."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from .model_base import Model
from .paths import Path, parse_path


class ValueType(StrEnum):
    """Into what a reference's value is turned, loudly."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    JSON = "json"
    FILE = "file"


class Immediate(Model):
    """The value itself."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"value"})

    value_type: Literal["immediate"] = "immediate"
    value: JsonValue = Field(description="any JSON")


class Reference(Model):
    """A path into the workflow's data, such as `steps.fetch.outputs.items[0]`."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"default"})

    value_type: Literal["reference"] = "reference"
    value: str = Field(description="the path")
    type: ValueType | None = Field(default=None, description="into what it is turned, loudly")
    default: JsonValue = Field(default=None, description="where there is nothing, or null")

    @property
    def has_default(self) -> bool:
        return "default" in self.model_fields_set

    @cached_property
    def path(self) -> Path:
        """Raises `PathError`, unless the document has been validated."""
        return parse_path(self.value)


class Composite(Model):
    """An object or an array of values."""

    value_type: Literal["composite"] = "composite"
    value: Annotated[
        Annotated["dict[str, Value]", Tag("<object>")] | Annotated["list[Value]", Tag("<array>")],
        Discriminator(lambda raw: "<array>" if isinstance(raw, list) else "<object>"),
    ] = Field(description="values, by name or in order")


class Template(Model):
    """A Jinja2 text over the same roots as a reference; what is undefined renders as nothing."""

    value_type: Literal["template"] = "template"
    value: str = Field(description="the text")


def _kind(raw: object) -> str | None:
    kind = raw.get("valueType") if isinstance(raw, Mapping) else getattr(raw, "value_type", None)
    return f"<{kind}>" if isinstance(kind, str) else None


Value = Annotated[
    Annotated[Immediate, Tag("<immediate>")]
    | Annotated[Reference, Tag("<reference>")]
    | Annotated[Composite, Tag("<composite>")]
    | Annotated[Template, Tag("<template>")],
    Discriminator(_kind),
]
"""Tags stand in angle brackets so that a place in a document can be told from a choice of the model's."""

InputMapping = dict[str, Value]
"""Destination (dotted keys build nested objects) → value."""

Composite.model_rebuild()


def as_value(raw: object) -> object:
    """A plain number, text, truth value or null where a value is expected stands for itself."""
    if raw is None or isinstance(raw, str | int | float | bool):
        return Immediate(value=raw)
    return raw


def literal_or_value(raw: object) -> object:
    """Plain JSON in which objects with a `valueType` are values: what a Switch gives out."""
    if isinstance(raw, Model) or (isinstance(raw, dict) and isinstance(raw.get("valueType"), str)):
        return raw
    if not _holds_values(raw):
        return {"valueType": "immediate", "value": raw}
    if isinstance(raw, dict):
        return {"valueType": "composite", "value": {name: literal_or_value(inner) for name, inner in raw.items()}}
    assert isinstance(raw, list)
    return {"valueType": "composite", "value": [literal_or_value(inner) for inner in raw]}


def _holds_values(raw: object) -> bool:
    if isinstance(raw, dict):
        return isinstance(raw.get("valueType"), str) or any(map(_holds_values, raw.values()))
    return isinstance(raw, list) and any(map(_holds_values, raw))
