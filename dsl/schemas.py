"""Checking data against declared fields at run time: a workflow's input and output, items, a signal's payload.

Fields are those of `model_schema.SchemaField`, as plain JSON (generated code carries them as literals).

Invariants: every mismatch is found at once, each with its path; the data given are not changed, what comes back has the
defaults filled in; a pattern cannot take for ever.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtara.agents import AgentError
from runtara.agents.patterns import compiled
from runtara.protocol.errors import BadInput

from .conditions import equal

Fields = Mapping[str, Mapping[str, Any]]
PATTERN_SECONDS: Final = 1.0
_SHOWN: Final = 10  # mismatches in the text of an error


class SchemaMismatch(BadInput):
    """Data that are not as declared. `mismatches` are texts, each with its path."""

    template = "{what} does not fit its schema: {reason}"
    what: str
    reason: str
    mismatches: list[str]


def conform(value: object, fields: Fields, *, what: str) -> object:
    """`value`, an object, with the defaults of absent fields. Raises `SchemaMismatch`; no fields declare nothing."""
    if not fields:
        return value
    mismatches: list[str] = []
    found = _object(value, fields, True, what, mismatches)
    if mismatches:
        more = len(mismatches) - _SHOWN
        listed = [*mismatches[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise SchemaMismatch(what=what, reason="; ".join(listed), mismatches=mismatches)
    return found


def _object(value: object, fields: Fields, open: bool, path: str, mismatches: list[str]) -> object:
    if not isinstance(value, Mapping):
        mismatches.append(f"{path} must be an object, not {_kind(value)}")
        return value
    found = dict(value)
    for name, field in fields.items():
        inner = found.get(name)
        if inner is None and not (name in found and field.get("nullable")):
            if "default" in field:
                found[name] = field["default"]
            elif field.get("required"):
                mismatches.append(f"{path}.{name} is {'null' if name in found else 'missing'}")
        elif inner is not None:
            found[name] = _field(inner, field, f"{path}.{name}", mismatches)
    if not open:
        mismatches += [f"{path}.{name} is not declared" for name in value if name not in fields]
    return found


def _field(value: object, field: Mapping[str, Any], path: str, mismatches: list[str]) -> object:
    if value is None:
        if not field.get("nullable"):
            mismatches.append(f"{path} is null")
        return value
    kind = field["type"]
    if not _is(value, kind):
        mismatches.append(f"{path} must be {_an(kind)}, not {_kind(value)}")
        return value
    mismatches += [f"{path} {fault}" for fault in _faults(value, field)]
    if kind == "object" and "properties" in field:
        return _object(value, field["properties"], field.get("additionalProperties", True), path, mismatches)
    if kind == "array" and "items" in field and isinstance(value, list):
        return [_field(item, field["items"], f"{path}[{index}]", mismatches) for index, item in enumerate(value)]
    return value


def _faults(value: object, field: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in field and not any(equal(value, one) for one in field["enum"]):
        yield f"must be one of {field['enum']!r}"
    size = len(value) if isinstance(value, (str, list)) else value
    unit = " characters" if isinstance(value, str) else " elements" if isinstance(value, list) else ""
    if isinstance(size, (int, float)) and not isinstance(size, bool):
        if "min" in field and size < field["min"]:
            yield f"must {'have' if unit else 'be'} at least {field['min']:g}{unit}"
        if "max" in field and size > field["max"]:
            yield f"must {'have' if unit else 'be'} at most {field['max']:g}{unit}"
    if "pattern" in field and isinstance(value, str) and not _found(field["pattern"], value):
        yield f"does not match the pattern {field['pattern']!r}"


def _found(pattern: str, text: str) -> bool:
    try:
        return compiled(pattern, ignore_case=False).search(text, timeout=PATTERN_SECONDS) is not None
    except (AgentError, TimeoutError):
        return False


def _is(value: object, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, Mapping)
        case "file":
            return isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("content"), str))
    raise ValueError(f"there is no type {kind!r}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'aio' else 'a'} {kind}"


def json_schema(fields: Fields) -> dict[str, Any]:
    """The JSON Schema of an object with these fields."""
    required = [name for name, field in fields.items() if field.get("required") and "default" not in field]
    schema: dict[str, Any] = {
        "type": "object", "properties": {name: _field_schema(field) for name, field in fields.items()},
    }  # fmt: skip
    return {**schema, "required": required} if required else schema


def _field_schema(field: Mapping[str, Any]) -> dict[str, object]:
    kind = field["type"]
    schema: dict[str, object] = {} if kind == "file" else {"type": [kind, "null"] if field.get("nullable") else kind}
    for name in ("description", "default", "enum", "format", "pattern"):
        if name in field:
            schema[name] = field[name]
    if "example" in field:
        schema["examples"] = [field["example"]]
    suffix = {"string": "Length", "array": "Items"}.get(kind)
    for bound in ("min", "max"):
        if bound in field:
            schema[f"{bound}{suffix}" if suffix else f"{bound}imum"] = field[bound]
    if "items" in field:
        schema["items"] = _field_schema(field["items"])
    if "properties" in field:
        schema.update(json_schema(field["properties"]))
    if not field.get("additionalProperties", True):
        schema["additionalProperties"] = False
    return schema
