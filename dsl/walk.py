"""Every value and condition of a step, with its place and what it may see.

Invariant: a new field that holds values is named here, or its references are neither checked nor listed.
"""

from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple, assert_never

from .model import (
    AgentStep,
    Composite,
    Condition,
    ConditionalStep,
    DelayStep,
    EmbedWorkflowStep,
    ErrorStep,
    FilterStep,
    FinishStep,
    Graph,
    GroupByStep,
    Immediate,
    InputMapping,
    LogStep,
    Operation,
    Reference,
    SplitStep,
    Step,
    SwitchStep,
    Template,
    Value,
    WaitForSignalStep,
    WhileStep,
)
from .places import Place


class Sees(Enum):
    """What a value sees besides the roots of its graph."""

    GRAPH = auto()
    ITEM = auto()  # a Filter's condition: the item in question
    LOOP = auto()  # a While's condition and the variables of its body: the loop so far


class Use(NamedTuple):
    value: Condition
    place: Place
    sees: Sees = Sees.GRAPH


def uses(step: Step) -> Iterator[Use]:  # noqa: C901  # one case a step type
    """The values and conditions of a step itself, whole; not those of its subgraphs."""
    match step:
        case FinishStep() | EmbedWorkflowStep():
            yield from _mapping(step.input_mapping, ("inputMapping",))
        case AgentStep():
            yield from _mapping(step.input_mapping, ("inputMapping",))
            if step.connection_ref is not None:
                yield Use(step.connection_ref, ("connectionRef",))
        case ConditionalStep():
            yield Use(step.condition, ("condition",))
        case SwitchStep():
            yield Use(step.config.value, ("config", "value"))
            for index, case in enumerate(step.config.cases):
                yield Use(case.output, ("config", "cases", index, "output"))
            if step.config.default is not None:
                yield Use(step.config.default, ("config", "default"))
        case SplitStep():
            yield Use(step.config.value, ("config", "value"))
            yield from _mapping(step.config.variables, ("config", "variables"))
        case WhileStep():
            yield Use(step.condition, ("condition",), Sees.LOOP)
            yield from _mapping(step.config.variables, ("config", "variables"), Sees.LOOP)
        case FilterStep():
            yield Use(step.config.value, ("config", "value"))
            yield Use(step.config.condition, ("config", "condition"), Sees.ITEM)
        case GroupByStep():
            yield Use(step.config.value, ("config", "value"))
        case DelayStep():
            yield Use(step.duration_ms, ("durationMs",))
        case WaitForSignalStep():
            if step.timeout_ms is not None:
                yield Use(step.timeout_ms, ("timeoutMs",))
            if step.action is not None:
                yield from _mapping(step.action.correlation, ("action", "correlation"))
                yield from _mapping(step.action.context, ("action", "context"))
        case LogStep() | ErrorStep():
            yield from _mapping(step.context, ("context",))
        case _:
            assert_never(step)


def mappings(step: Step) -> Iterator[tuple[InputMapping, Place]]:
    """The mappings of a step whose names are destinations or names of variables."""
    match step:
        case FinishStep() | EmbedWorkflowStep() | AgentStep():
            yield step.input_mapping, ("inputMapping",)
        case LogStep() | ErrorStep():
            yield step.context, ("context",)
        case WaitForSignalStep() if step.action is not None:
            yield step.action.correlation, ("action", "correlation")
            yield step.action.context, ("action", "context")
        case _:
            return


def subgraphs(step: Step) -> Iterator[tuple[Graph, Place]]:
    match step:
        case SplitStep() | WhileStep():
            yield step.subgraph, ("subgraph",)
        case WaitForSignalStep() if step.on_wait is not None:
            yield step.on_wait, ("onWait",)
        case _:
            return


def conditions(use: Use) -> Iterator[tuple[Operation, Place]]:
    """The operations within a value or condition."""
    if isinstance(use.value, Operation):
        yield use.value, use.place
        for index, argument in enumerate(use.value.arguments):
            yield from conditions(Use(argument, (*use.place, "arguments", index), use.sees))


def leaves(use: Use) -> Iterator[Use]:
    """The references, templates and immediate values within a value or condition."""
    value, place = use.value, use.place
    match value:
        case Operation():
            for index, argument in enumerate(value.arguments):
                yield from leaves(Use(argument, (*place, "arguments", index), use.sees))
        case Composite():
            for name, inner in _inside(value):
                yield from leaves(Use(inner, (*place, "value", name), use.sees))
        case Reference() | Template() | Immediate():
            yield use
        case _:
            assert_never(value)


def _inside(value: Composite) -> list[tuple[str | int, Value]]:
    return list(value.value.items()) if isinstance(value.value, dict) else list(enumerate(value.value))


def _mapping(mapping: InputMapping, place: Place, sees: Sees = Sees.GRAPH) -> Iterator[Use]:
    for name, value in mapping.items():
        yield Use(value, (*place, name), sees)
