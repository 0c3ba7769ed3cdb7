"""The catalogue: what agents can do, as JSON for editors, validators and people.

Invariants: all of it comes from the decorators, the models and their docstrings; equal code gives equal bytes.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter
from pydantic_core import to_jsonable_python

from .agent import Agent, Capability
from .connections import ConnectionType, connection_types
from .fields import KnownField, known_fields
from .registry import Registry

_REF: Final = "#/$defs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input. `types` are JSON Schema's; empty: any. `names` are all it is known by, the first the one to show."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    required: bool
    nullable: bool
    default: JsonValue
    enum: tuple[JsonValue, ...]
    description: str
    examples: tuple[JsonValue, ...]

    @property
    def name(self) -> str:
        return self.names[0]


def fields(capability: Capability) -> tuple[Field, ...]:
    """The inputs of a capability, in order."""
    schema = input_schema(capability)
    return tuple(_field(known, schema) for known in known_fields(capability.inputs))


def input_schema(capability: Capability) -> dict[str, Any]:
    """JSON Schema of the inputs."""
    return capability.inputs.model_json_schema(by_alias=False)


def output_schema(capability: Capability) -> dict[str, Any]:
    """JSON Schema of the output; `{}` where it may be anything."""
    output: Any = capability.output
    return TypeAdapter(output).json_schema(mode="serialization", by_alias=True)


def catalogue(registry: Registry) -> dict[str, JsonValue]:
    """All agents and all types of connection."""
    return {
        "agents": [agent_entry(agent) for agent in registry.agents()],
        "connections": [connection_entry(kind) for _, kind in sorted(connection_types().items())],
    }


def agent_entry(agent: Agent) -> dict[str, JsonValue]:
    """One agent with its capabilities."""
    return {
        "id": agent.id,
        "displayName": agent.display_name,
        "description": agent.description,
        "sideEffects": agent.side_effects,
        "connections": list(agent.connections),
        "capabilities": [capability_entry(one) for one in agent.capabilities.values()],
    }


def capability_entry(capability: Capability) -> dict[str, JsonValue]:
    """One capability with its inputs and both schemas."""
    return {
        "agent": capability.agent,
        "id": capability.id,
        "aliases": list(capability.aliases),
        "displayName": capability.display_name,
        "description": capability.description,
        "sideEffects": capability.side_effects,
        "idempotent": capability.idempotent,
        "rateLimited": capability.rate_limited,
        "errors": list(capability.errors),
        "connections": list(capability.connections),
        "connectionRequired": capability.connection_required,
        "inputs": [_field_entry(field) for field in fields(capability)],
        "inputSchema": input_schema(capability),
        "outputSchema": output_schema(capability),
    }


def connection_entry(kind: ConnectionType) -> dict[str, JsonValue]:
    """One type of connection; which of its fields are secret."""
    return {
        "id": kind.id,
        "description": kind.description,
        "secrets": list(kind.secret_fields),
        "schema": kind.model.model_json_schema(),
    }


def _field_entry(field: Field) -> JsonValue:
    entry: dict[str, JsonValue] = {
        "name": field.name,
        "aliases": list(field.names[1:]),
        "types": list(field.types),
        "required": field.required,
        "description": field.description,
    }
    if not field.required:
        entry["default"] = field.default
    if field.enum:
        entry["enum"] = list(field.enum)
    if field.examples:
        entry["examples"] = list(field.examples)
    return entry


def _field(known: KnownField, schema: dict[str, Any]) -> Field:
    parts = list(_parts(schema["properties"][known.name], schema.get("$defs", {})))
    types = dict.fromkeys(kind for part in parts for kind in _types(part) if kind != "null")
    default = None if known.required else known.info.get_default(call_default_factory=True, validated_data={})
    return Field(
        names=known.names,
        types=tuple(types),
        required=known.required,
        nullable=known.nullable,
        default=to_jsonable_python(default, by_alias=True),
        enum=tuple(value for part in parts for value in _enum(part)) if all(map(_closed, parts)) else (),
        description=known.info.description or "",
        examples=tuple(known.info.examples or ()),
    )


def _parts(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        return _parts(definitions.get(schema["$ref"].removeprefix(_REF), {}), definitions)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return [part for one in schema[word] for part in _parts(one, definitions)]
    return [schema]


def _types(part: dict[str, Any]) -> list[str]:
    kind = part.get("type")
    return [kind] if isinstance(kind, str) else list(kind or [])


def _enum(part: dict[str, Any]) -> list[JsonValue]:
    return list(part.get("enum", [part["const"]] if "const" in part else []))


def _closed(part: dict[str, Any]) -> bool:
    """Whether only listed values fit."""
    return "enum" in part or "const" in part or part.get("type") == "null"
