"""What a JSON workflow declares besides its steps, and the `Workflow` that such a declaration and a function make.

Invariants: input is `{"data": …, "variables": {…}}`, and an object with neither name is data; it is checked, and
defaults are filled in, before anything of the workflow runs; a result that is not as declared fails the instance.
"""

import functools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import orjson
from msgspec import Raw

from runtara.protocol.errors import InvalidInput
from runtara.sdk.context import Context
from runtara.sdk.workflow import Workflow

from ..schemas import Fields, SchemaMismatch, conform, json_schema
from .errors import SCHEMA_MISMATCH, Finished, StepError

DATA: Final = "data"
VARIABLES: Final = "variables"
DEFAULT_RATE_LIMIT_BUDGET_MS: Final = 60_000

Body = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """`variables` are constants that an input may replace, of the types in `variable_types`; `durable` False: agents'
    calls are not recorded, and made again by every attempt; `connections` are the names that its steps may ask for."""

    id: str
    description: str = ""
    input_schema: Fields = field(default_factory=dict)
    output_schema: Fields = field(default_factory=dict)
    variables: Mapping[str, object] = field(default_factory=dict)
    variable_types: Mapping[str, str] = field(default_factory=dict)
    durable: bool = True
    track_events: bool = False
    rate_limit_budget_ms: int = DEFAULT_RATE_LIMIT_BUDGET_MS
    timeout_seconds: int | None = None
    connections: tuple[str, ...] = ()


class JsonWorkflow(Workflow[..., Any]):
    """A workflow whose input is data and variables."""

    def __init__(self, fn: Body, definition: Definition) -> None:
        seconds = definition.timeout_seconds
        super().__init__(
            fn, name=definition.id, timeout=None if seconds is None else timedelta(seconds=seconds),
            connections=definition.connections,
        )  # fmt: skip
        self.definition = definition
        self.description = definition.description

    def arguments(self, input: bytes | Raw) -> dict[str, Any]:
        """`data` and `variables`, checked. Raises `InvalidInput`."""
        given = self._given(input)
        variables = {} if given.get(VARIABLES) is None else given[VARIABLES]
        self._check_variables(variables)
        types = {name: {"type": kind, "nullable": True} for name, kind in self.definition.variable_types.items()}
        try:
            conform(variables, types, what=VARIABLES)
            data = conform(given.get(DATA, {}), self.definition.input_schema, what=DATA)
        except SchemaMismatch as exc:
            raise InvalidInput(workflow=self.name, reason=str(exc)) from exc
        return {DATA: data, VARIABLES: variables}

    def _given(self, input: bytes | Raw) -> dict[str, Any]:
        try:
            given = orjson.loads(bytes(input))
        except orjson.JSONDecodeError as exc:
            raise InvalidInput(workflow=self.name, reason=str(exc)) from exc
        if not isinstance(given, dict):
            raise InvalidInput(workflow=self.name, reason='it is an object: {"data": …, "variables": {…}}')
        if DATA not in given and VARIABLES not in given:
            return {DATA: given}
        others = sorted(given.keys() - {DATA, VARIABLES})
        if others:
            reason = f"beside data and variables there is nothing else, but here is {others[0]!r}; put it into data"
            raise InvalidInput(workflow=self.name, reason=reason)
        return given

    def _check_variables(self, variables: object) -> None:
        if not isinstance(variables, dict):
            raise InvalidInput(workflow=self.name, reason="variables is an object: name → value")
        unknown = sorted(variables.keys() - self.definition.variables.keys())
        if unknown:
            known = ", ".join(sorted(self.definition.variables)) or "none"
            raise InvalidInput(
                workflow=self.name, reason=f"it has no variable {unknown[0]!r}; those that an input may set: {known}"
            )

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the input object."""
        definition = self.definition
        data = json_schema(definition.input_schema) if definition.input_schema else {}
        declared = json_schema({name: {"type": kind} for name, kind in definition.variable_types.items()})["properties"]
        variables = {name: {**declared.get(name, {}), "default": value} for name, value in definition.variables.items()}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {
                DATA: data,
                VARIABLES: {"type": "object", "properties": variables, "additionalProperties": False},
            },
        }
        return {**schema, "required": [DATA]} if data.get("required") else schema


def json_workflow(definition: Definition) -> Callable[[Body], JsonWorkflow]:
    """Make `async def fn(ctx, data, variables)`, the compiled graph, a workflow."""

    def make(fn: Body) -> JsonWorkflow:
        @functools.wraps(fn)
        async def run(ctx: Context, data: Any = None, variables: Any = None) -> Any:
            try:
                result = await fn(ctx, data, variables)
            except Finished as end:
                result = end.result
            return _checked_result(result, definition)

        return JsonWorkflow(run, definition)

    return make


def _checked_result(result: object, definition: Definition) -> object:
    try:
        return conform(result, definition.output_schema, what="the result")
    except SchemaMismatch as exc:
        details = {"mismatches": exc.mismatches}
        raise StepError(step=definition.id, code=SCHEMA_MISMATCH, message=str(exc), details=details) from exc
