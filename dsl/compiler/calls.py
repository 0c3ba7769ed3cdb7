"""Each kind of step as the call of the run time that does it. What is the default there is left out."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..model import (
    AgentStep,
    BaseStep,
    ConditionalStep,
    DelayStep,
    EmbedWorkflowStep,
    ErrorStep,
    FilterStep,
    FinishStep,
    Graph,
    GroupByStep,
    LogStep,
    SplitStep,
    SwitchStep,
    WaitForSignalStep,
    WhileStep,
)
from ..model_schema import Variable
from ..model_steps import SwitchCase
from ..model_values import InputMapping
from .printing import Array, Call, Node, Raw, Table, Text, literal, texts
from .values import condition, fields, mapping, value

BodyName = Callable[[Graph, str, str], str]
"""Gives a body (graph, step id, what it is) a function of its own, and says its name."""

_Parts = tuple[list[Node], dict[str, Node]]
_RENAMED: Final = {"retry_delay": "retry_delay_ms", "timeout": "timeout_ms"}
_TRUE: Final = Raw("True")


def call_of(step: BaseStep, body: BodyName) -> Call:
    """The call that does `step`."""
    function, parts = _STEPS[type(step)]
    args, kwargs = parts(step, body)
    if step.name is not None and step.name != step.id:
        kwargs["name"] = Text(step.name)
    if step.breakpoint:
        kwargs["breakpoint"] = _TRUE
    return Call(f"run.{function}", [Text(step.id), *args], kwargs)


def _finish(step: FinishStep, body: BodyName) -> _Parts:
    return [mapping(step.input_mapping)], {}


def _agent(step: AgentStep, body: BodyName) -> _Parts:
    kwargs: dict[str, Node] = {}
    if step.connection_ref is not None:
        kwargs["connection"] = value(step.connection_ref)
    elif step.connection_id is not None:
        kwargs["connection"] = Text(step.connection_id)
    args: list[Node] = [Text(step.agent_id), Text(step.capability_id), mapping(step.input_mapping)]
    return args, {**kwargs, **_given(step, max_retries=3, retry_delay=1_000, timeout=None), **_durable(step)}


def _conditional(step: ConditionalStep, body: BodyName) -> _Parts:
    return [condition(step.condition)], {}


def _switch(step: SwitchStep, body: BodyName) -> _Parts:
    config = step.config
    kwargs: dict[str, Node] = {}
    if "default" in config.model_fields_set:
        kwargs["default"] = literal(None) if config.default is None else value(config.default)
    if step.routes:
        kwargs["routes"] = _TRUE
    return [value(config.value), Array([_case(case) for case in config.cases])], kwargs


def _case(case: SwitchCase) -> Call:
    args = [Text(case.match_type.value), literal(case.match), value(case.output)]
    return Call("case", args, {} if case.route is None else {"route": Text(case.route)})


def _split(step: SplitStep, body: BodyName) -> _Parts:
    config = step.config
    options = _given(
        config, parallelism=None, sequential=False, dont_stop_on_failed=False, batch_size=0, max_retries=0,
        retry_delay=1_000, timeout=None, allow_null=False, convert_single_value=False,
    )  # fmt: skip
    for name, schema in (("input_schema", step.input_schema), ("output_schema", step.output_schema)):
        if schema:
            options[name] = fields(schema)
    kwargs = {**_variables(step.subgraph.variables, config.variables), **_durable(step)}
    if options:
        kwargs["options"] = Call("SplitOptions", (), options)
    return [value(config.value), Raw(body(step.subgraph, step.id, "item"))], kwargs


def _while(step: WhileStep, body: BodyName) -> _Parts:
    kwargs = _given(step.config, max_iterations=10, timeout=None)
    kwargs |= {**_variables(step.subgraph.variables, step.config.variables), **_durable(step)}
    return [condition(step.condition), Raw(body(step.subgraph, step.id, "turn"))], kwargs


def _filter(step: FilterStep, body: BodyName) -> _Parts:
    return [value(step.config.value), condition(step.config.condition)], {}


def _group_by(step: GroupByStep, body: BodyName) -> _Parts:
    expected = step.config.expected_keys
    return [value(step.config.value), Text(step.config.key)], {"expected_keys": texts(expected)} if expected else {}


def _embed(step: EmbedWorkflowStep, body: BodyName) -> _Parts:
    kwargs = {} if step.child_version == "latest" else {"version": literal(step.child_version)}
    kwargs |= _given(step, max_retries=3, retry_delay=1_000, timeout=None)
    return [Text(step.child_workflow_id), mapping(step.input_mapping)], kwargs


def _delay(step: DelayStep, body: BodyName) -> _Parts:
    return [value(step.duration_ms)], {}


def _signal(step: WaitForSignalStep, body: BodyName) -> _Parts:
    kwargs: dict[str, Node] = {} if step.timeout_ms is None else {"timeout_ms": value(step.timeout_ms)}
    if step.response_schema:
        kwargs["response_schema"] = fields(step.response_schema)
    if step.action is not None:
        shown: dict[str, Node] = {} if step.action.key is None else {"key": Text(step.action.key)}
        for name, given in (("correlation", step.action.correlation), ("context", step.action.context)):
            shown |= {name: mapping(given)} if given else {}
        kwargs["action"] = Table(shown)
    if step.on_wait is not None:
        kwargs["on_wait"] = Raw(body(step.on_wait, step.id, "before"))
        kwargs |= _variables(step.on_wait.variables, {})
    return [], kwargs


def _log(step: LogStep, body: BodyName) -> _Parts:
    return [Text(step.level.value), Text(step.message), *([mapping(step.context)] if step.context else [])], {}


def _error(step: ErrorStep, body: BodyName) -> _Parts:
    kwargs: dict[str, Node] = {"context": mapping(step.context)} if step.context else {}
    return [Text(step.code), Text(step.message)], {**_given(step, category="permanent", severity="error"), **kwargs}


_STEPS: Final[dict[type[BaseStep], tuple[str, Callable[[Any, BodyName], _Parts]]]] = {
    FinishStep: ("finish", _finish),
    AgentStep: ("agent", _agent),
    ConditionalStep: ("conditional", _conditional),
    SwitchStep: ("switch", _switch),
    SplitStep: ("split", _split),
    WhileStep: ("loop", _while),
    FilterStep: ("filter", _filter),
    GroupByStep: ("group_by", _group_by),
    EmbedWorkflowStep: ("embed", _embed),
    DelayStep: ("delay", _delay),
    WaitForSignalStep: ("wait_for_signal", _signal),
    LogStep: ("log", _log),
    ErrorStep: ("error", _error),
}


def _given(model: object, **defaults: object) -> dict[str, Node]:
    """The options that differ from what they are by default."""
    found = {name: getattr(model, name) for name in defaults}
    return {_RENAMED.get(name, name): literal(item) for name, item in found.items() if item != defaults[name]}


def _durable(step: BaseStep) -> dict[str, Node]:
    return {"durable": Raw("False")} if step.durable is False else {}


def _variables(constants: Mapping[str, Variable], given: InputMapping) -> dict[str, Node]:
    """What a body sees: its own constants, and what it is given."""
    found = {**{name: literal(variable.value) for name, variable in constants.items()}, **mapping(given).items}
    return {"variables": Table(found)} if found else {}
