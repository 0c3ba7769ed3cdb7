"""JSON Schema of a document, for editors: made from the model, so that the two cannot differ.

It has the language's own spellings. What is read besides (the other generation's names, a JSON Schema object where
fields are declared, plain values that stand for themselves) is allowed as far as JSON Schema can say it.
"""

from typing import Any, Final

from pydantic import TypeAdapter

from .model import Document, Graph

Json = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PREFIX: Final = "#/$defs/"
_VALUES: Final = ("Immediate", "Reference", "Composite", "Template")
_NOT_IN_TEXTS: Final = frozenset({"title", "discriminator"})
_SCHEMAS: Final = frozenset({"inputSchema", "outputSchema", "responseSchema"})
_SCALAR: Final[Json] = {"type": ["string", "number", "boolean", "null"]}


def document_schema() -> Json:
    """The schema, as `runtara dsl schema` prints it."""
    made = TypeAdapter(Document | Graph).json_schema()
    definitions: Json = {name: _plain(schema) for name, schema in made["$defs"].items()}
    for name, schema in definitions.items():
        _widen(name, schema)
    definitions |= {
        "Value": {"description": "Where something comes from.", "oneOf": [_ref(name) for name in _VALUES]},
        "Condition": {
            "description": "An operation, or a value that is taken by its truth.",
            "anyOf": [_ref("Operation"), _ref("Value"), _SCALAR],
        },
        "Schema": {
            "description": "Name → field; or a JSON Schema object.",
            "anyOf": [
                {"type": "object", "additionalProperties": _ref("SchemaField")},
                {"type": "object", "properties": {"type": {"const": "object"}}, "required": ["type"]},
            ],
        },
    }
    return {
        "$schema": DIALECT,
        "title": "Runtara workflow",
        "description": "A JSON workflow: the graph of its steps, alone or in an envelope.",
        "anyOf": [_ref("Document"), _ref("Graph")],
        "$defs": dict(sorted(definitions.items())),
    }


def _ref(name: str) -> Json:
    return {"$ref": _PREFIX + name}


def _plain(schema: Any, name: str = "") -> Any:
    """Without generated titles, with choices of values and conditions by their name."""
    if isinstance(schema, list):
        return [_plain(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    choices = [choice.get("$ref", "") for choice in schema.get("oneOf", ()) if isinstance(choice, dict)]
    kinds = {choice.removeprefix(_PREFIX) for choice in choices}
    rest = {key: value for key, value in schema.items() if key not in ("oneOf", *_NOT_IN_TEXTS)}
    if kinds == {*_VALUES}:
        return {**_named(rest), **_ref("Value")}
    if kinds == {*_VALUES, "Operation"}:
        return {**_named(rest), **_ref("Condition")}
    kept = schema if name == "properties" else {key: schema[key] for key in schema if key not in _NOT_IN_TEXTS}
    return {key: _plain(inner, key if name != "properties" else "") for key, inner in kept.items()}


def _named(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key == "description"}


def _widen(name: str, schema: Json) -> None:
    """What the model reads before it checks, and what it wants that has a default."""
    fields: Json = schema.get("properties", {})
    if "stepType" in fields:
        schema["required"] = ["stepType", *(field for field in schema.get("required", ()) if field != "id")]
    if "valueType" in fields:
        schema["required"] = ["valueType", *schema.get("required", ())]
    for field in fields:
        if field in _SCHEMAS:
            fields[field] = {**_named(fields[field]), **_ref("Schema")}
        elif field in ("durationMs", "timeoutMs"):
            fields[field] = {**_named(fields[field]), "anyOf": [_ref("Value"), {"type": ["string", "number", "null"]}]}
    match name:
        case "SwitchCase":
            fields["output"] = _named(fields["output"])
        case "SwitchConfig":
            fields["default"] = _named(fields["default"])
        case "Graph":
            described = "constants by name: `{type, value, description}`, or a plain value"
            fields["variables"] = {"description": described, "type": "object"}
        case "SchemaField":
            fields["required"] = {**fields["required"], "type": ["boolean", "array"]}
            fields["type"] = {**_named(fields["type"]), "anyOf": [_ref("FieldType"), {"type": "array"}]}
        case _:
            pass
