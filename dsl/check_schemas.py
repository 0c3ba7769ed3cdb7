"""Checks of what a graph declares: variables and schemas against the values that stand in them."""

from collections.abc import Mapping
from typing import Final

from pydantic.alias_generators import to_camel

from runtara.agents import AgentError
from runtara.agents.patterns import compiled

from .model import FieldType, Graph, SchemaField, SplitStep, Step, Variable, WaitForSignalStep
from .places import Place
from .report import Report
from .suggest import nearest


def check_declarations(graph: Graph, report: Report) -> None:
    """Of the graph itself: its variables, its input and output."""
    for name, variable in graph.variables.items():
        if name.startswith("_"):
            says = f"the variable {name!r}: names that begin with _ are built in"
            report.say("E203", says, ("variables", name))
        _check_variable(name, variable, report)
    _check_fields(graph.input_schema, ("inputSchema",), None, report)
    _check_fields(graph.output_schema, ("outputSchema",), None, report)


def check_step_schemas(id: str, step: Step, report: Report) -> None:
    at: Place = ("steps", id)
    match step:
        case SplitStep():
            _check_fields(step.input_schema, (*at, "inputSchema"), id, report)
            _check_fields(step.output_schema, (*at, "outputSchema"), id, report)
        case WaitForSignalStep():
            _check_fields(step.response_schema, (*at, "responseSchema"), id, report)
        case _:
            pass


def _check_variable(name: str, variable: Variable, report: Report) -> None:
    if variable.type is not None and variable.value is not None and not fits(variable.value, variable.type):
        says = f"the variable {name!r} is declared as {variable.type}, but its value is {_kind(variable.value)}"
        report.say("E023", says, ("variables", name, "value"))


def _check_fields(fields: Mapping[str, SchemaField], at: Place, step: str | None, report: Report) -> None:
    for name, field in fields.items():
        _check_field(name, field, (*at, name), step, report)
        if field.properties:
            _check_fields(field.properties, (*at, name, "properties"), step, report)
        if field.items is not None:
            _check_field(f"{name}[]", field.items, (*at, name, "items"), step, report)
            _check_fields(field.items.properties or {}, (*at, name, "items", "properties"), step, report)


_TEXT_OR_NUMBER: Final = frozenset({FieldType.STRING, FieldType.INTEGER, FieldType.NUMBER})
_ONLY_OF: Final[Mapping[str, frozenset[FieldType]]] = {
    "items": frozenset({FieldType.ARRAY}),
    "properties": frozenset({FieldType.OBJECT}),
    "additional_properties": frozenset({FieldType.OBJECT}),
    "pattern": frozenset({FieldType.STRING}),
    "min": _TEXT_OR_NUMBER | {FieldType.ARRAY},
    "max": _TEXT_OR_NUMBER | {FieldType.ARRAY},
}
"""What a field can be told only if it is of one of these types."""


def _check_field(name: str, field: SchemaField, at: Place, step: str | None, report: Report) -> None:
    for told, kinds in _ONLY_OF.items():
        if told in field.model_fields_set and field.type not in kinds:
            written = to_camel(told)
            says = f"`{written}` has no effect on {name!r}, which is declared as {field.type}"
            report.say("W200", says, (*at, written), step=step)
    for written, values in (("default", [field.default] if field.has_default else []), ("enum", field.enum or [])):
        wrong = [value for value in values if value is not None and not fits(value, field.type)]
        if wrong:
            says = f"the field {name!r} is declared as {field.type}, but its {written} holds {_kind(wrong[0])}"
            report.say("E023", says, (*at, written), step=step)
    if field.enum and field.default is not None and field.default not in field.enum:
        allowed = [str(value) for value in field.enum]
        says = f"the default of {name!r}, {field.default!r}, is none of its `enum`: {', '.join(allowed)}"
        report.say("E024", says, (*at, "default"), step=step, suggestion=nearest(str(field.default), allowed))
    if field.min is not None and field.max is not None and field.min > field.max:
        report.say("E203", f"`min` of {name!r} is greater than its `max`", (*at, "min"), step=step)
    if field.pattern is not None:
        try:
            compiled(field.pattern, ignore_case=False)
        except AgentError as exc:
            says = f"the pattern of {name!r} cannot be used: {exc.message}"
            report.say("E203", says, (*at, "pattern"), step=step)


def fits(value: object, kind: FieldType) -> bool:
    """Whether a JSON value is of a declared type, without turning it into one."""
    match kind:
        case FieldType.STRING:
            return isinstance(value, str)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case FieldType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldType.ARRAY:
            return isinstance(value, list)
        case FieldType.OBJECT:
            return isinstance(value, dict)
        case FieldType.FILE:
            return isinstance(value, str | list) or (isinstance(value, dict) and "content" in value)


def _kind(value: object) -> str:
    names = {str: "a text", bool: "a truth value", int: "a whole number", float: "a number", list: "an array"}
    return names.get(type(value), "an object")
