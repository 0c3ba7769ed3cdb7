"""JSON workflows written shortly, for tests."""

import itertools
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def ref(path: str, **options: object) -> Json:
    return {"valueType": "reference", "value": path, **options}


def imm(value: object) -> Json:
    return {"valueType": "immediate", "value": value}


def op(name: str, *arguments: object) -> Json:
    return {"type": "operation", "op": name, "arguments": [_value(argument) for argument in arguments]}


def mapping(values: Mapping[str, object]) -> Json:
    return {name: _value(value) for name, value in values.items()}


def _value(value: object) -> object:
    return value if isinstance(value, dict) and ("valueType" in value or "op" in value) else imm(value)


def agent(capability: str, inputs: Mapping[str, object] | None = None, **fields: object) -> Json:
    given = mapping(inputs or {})
    return {"stepType": "Agent", "agentId": "probe", "capabilityId": capability, "inputMapping": given, **fields}


def echo(value: object, **fields: object) -> Json:
    return agent("echo", {"value": value}, **fields)


def finish(**result: object) -> Json:
    return {"stepType": "Finish", "inputMapping": mapping(result)}


def step(kind: str, **fields: object) -> Json:
    return {"stepType": kind, **fields}


def graph(steps: Mapping[str, Json], *edges: str, **fields: object) -> Json:
    """`edges` are `"from to"`, or `"from to label"`; without any, the steps follow each other as they stand."""
    ids = list(steps)
    written = edges or tuple(f"{one} {other}" for one, other in itertools.pairwise(ids))
    plan = [dict(zip(("fromStep", "toStep", "label"), edge.split(), strict=False)) for edge in written]
    return {"steps": dict(steps), "executionPlan": plan, "entryPoint": ids[0], **fields}
