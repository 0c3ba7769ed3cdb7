"""Calling a capability by data: from a mapping of JSON values to inputs, and from what it returns to a JSON value.

Invariants: whatever goes wrong is an `AgentError`; it never holds a secret of the connection; a plain method never
blocks the event loop, unless it says of itself that it is quick.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from .agent import Capability
from .connections import Connection, connection_types, without_secrets
from .errors import AgentError, from_exception
from .fields import known_fields
from .models import Inputs

INPUT_MISSING: Final = "STEP_REQUIRED_INPUT_MISSING"
INPUT_NULL: Final = "STEP_REQUIRED_INPUT_NULL"
INVALID_INPUT: Final = "STEP_INVALID_INPUT"
STEP_TIMEOUT: Final = "STEP_TIMEOUT"
CONNECTION_MISSING: Final = "STEP_CONNECTION_MISSING"
CONNECTION_UNSUITABLE: Final = "STEP_CONNECTION_UNSUITABLE"
INVALID_OUTPUT: Final = "AGENT_INVALID_OUTPUT"
_PROBLEMS_SHOWN: Final = 5


async def call(
    capability: Capability,
    inputs: Inputs | Mapping[str, object],
    *,
    connection: Connection | None = None,
    timeout: timedelta | None = None,
) -> JsonValue:
    """Call a capability and give its output as a JSON value. Raises `AgentError`, and nothing else but cancellation.

    After `timeout` the error is STEP_TIMEOUT, transient. A plain method in a thread cannot be interrupted: it goes on
    unheeded.
    """
    ready = inputs if isinstance(inputs, capability.inputs) else prepare(capability, dict(inputs))
    _check_connection(capability, connection)
    try:
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()) as limit:
            output = await _invoke(capability, ready, connection)
    except Exception as exc:  # foreign errors are translated here, once
        if isinstance(exc, TimeoutError) and limit.expired() and timeout is not None:
            raise _timed_out(capability, timeout) from exc
        if connection is None and isinstance(exc, AgentError):
            raise
        if connection is None:
            raise from_exception(exc) from exc
        raise without_secrets(from_exception(exc), connection) from None  # a cause is recorded with its text
    return _to_json(capability, output)


def prepare(capability: Capability, mapping: Mapping[str, object]) -> Inputs:
    """The typed inputs. Text, numbers and booleans are turned into each other where the field's type asks for it and
    the value has that meaning. A null counts as not given where the field is optional and knows no null. Names that the
    capability does not know are left aside (see `unknown_fields`).

    Raises `AgentError`, permanent: STEP_REQUIRED_INPUT_MISSING, STEP_REQUIRED_INPUT_NULL or STEP_INVALID_INPUT.
    """
    given: dict[str, object] = {}
    missing, null = [], []
    for field in known_fields(capability.inputs):
        key = next((key for key in field.names if key in mapping), None)
        value = None if key is None else mapping[key]
        if key is None:
            missing += [field.name] if field.required else []
        elif value is None and not field.nullable:
            null += [field.name] if field.required else []
        elif field.is_text and isinstance(value, bool):
            given[field.name] = "true" if value else "false"
        else:
            given[field.name] = value
    if missing:
        raise _refused(capability, INPUT_MISSING, f"needs {_listed(missing)}", fields=missing)
    if null:
        raise _refused(capability, INPUT_NULL, f"needs a value, not null, for {_listed(null)}", fields=null)
    try:
        return capability.inputs.model_validate(given)
    except ValidationError as exc:
        raise _invalid(capability, exc) from None


def unknown_fields(capability: Capability, names: Mapping[str, object]) -> tuple[str, ...]:
    """The names among `names` that are no inputs of the capability."""
    known = {key for field in known_fields(capability.inputs) for key in field.names}
    return tuple(name for name in names if name not in known)


def _check_connection(capability: Capability, connection: Connection | None) -> None:
    if connection is None:
        if capability.connection_required:
            kinds = " or ".join(capability.connections)
            raise _refused(capability, CONNECTION_MISSING, f"needs a connection of type {kinds}")
        return
    models = tuple(connection_types()[id].model for id in capability.connections if id in connection_types())
    if not isinstance(connection, models):
        kinds = " or ".join(capability.connections) or "none"
        raise _refused(
            capability, CONNECTION_UNSUITABLE, f"takes a connection of type {kinds}, not a {type(connection).__name__}"
        )


@lru_cache(maxsize=256)
def _object_of(owner: type) -> Any:
    """The one object of an agent's class in this process: what it pools, all steps share."""
    return owner()


async def _invoke(capability: Capability, inputs: Inputs, connection: Connection | None) -> object:
    agent = _object_of(capability.owner)
    arguments = (agent, inputs, connection) if capability.connections else (agent, inputs)
    if capability.is_async:
        return await capability.function(*arguments)
    if capability.inline:
        return capability.function(*arguments)
    return await asyncio.to_thread(capability.function, *arguments)


def _to_json(capability: Capability, output: object) -> JsonValue:
    try:
        value: JsonValue = to_jsonable_python(output, by_alias=True, bytes_mode="base64")
    except (PydanticSerializationError, ValueError, UnicodeError) as exc:
        raise _refused(capability, INVALID_OUTPUT, f"returned what JSON cannot carry: {exc}") from exc
    return value


def _timed_out(capability: Capability, timeout: timedelta) -> AgentError:
    seconds = timeout.total_seconds()
    return AgentError(
        STEP_TIMEOUT, f"{capability.name} did not end within {seconds:g} s", category="transient",
        attributes={"seconds": seconds},
    )  # fmt: skip


def _invalid(capability: Capability, error: ValidationError) -> AgentError:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:_PROBLEMS_SHOWN]]
    problems += [f"and {len(found) - _PROBLEMS_SHOWN} more"] if len(found) > _PROBLEMS_SHOWN else []
    fields = list(dict.fromkeys(str(one["loc"][0]) for one in found if one["loc"]))
    return _refused(capability, INVALID_INPUT, f"cannot use its inputs: {'; '.join(problems)}", fields=fields)


def _refused(capability: Capability, code: str, what: str, *, fields: list[str] | None = None) -> AgentError:
    return AgentError(code, f"{capability.name} {what}", attributes={} if fields is None else {"fields": fields})


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
