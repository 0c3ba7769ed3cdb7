"""A whole module: the definition, a function for each body, and the workflow.

Invariants: the same document gives the same text; the text needs nothing but `runtara.dsl.runtime` and `runtara.sdk`,
passes a strict type checker, and names only what it imports.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from runtara.protocol.ids import is_id

from ..model import AgentStep, BaseStep, EmbedWorkflowStep, Graph, SplitStep, WaitForSignalStep, WhileStep
from ..model_schema import Variable
from ..model_values import Immediate, Reference
from ..paths import Path
from .graphs import GraphCode
from .printing import WIDTH, Call, Node, Raw, Text, literal, printed, texts
from .values import fields
from .writing import Block, Names

_RUNTIME: Final = (
    "Definition", "Finished", "Run", "SplitOptions", "StepError", "all_of", "any_of", "by_readiness", "case", "check",
    "compare", "json_workflow", "ref", "template", "together",
)  # fmt: skip
_OTHERS: Final = frozenset({"Any", "Context", "Sequence", "WORKFLOW"})
_USED: Final = re.compile(r"\b(" + "|".join(_RUNTIME) + r")\b")


def compile_workflow(graph: Graph, *, id: str) -> str:
    """The Python source of a checked graph. Raises `CannotCompile` for one that the validator would refuse."""
    return _Module(graph, id).text()


class _Module:
    def __init__(self, graph: Graph, id: str) -> None:
        self._graph = graph
        self._id = id
        self._names = Names(frozenset(_RUNTIME) | _OTHERS)
        self._name = self._names.new(id)
        self._functions: list[list[str]] = []

    def text(self) -> str:
        block = Block()
        with block.within(f"async def {self._name}(ctx: Context, data: Any = None, variables: Any = None) -> Any"):
            block.line("run = Run(ctx, data, variables, WORKFLOW)")
            GraphCode(self._graph, block, self._names, self._body, workflow=self._id).write()
        parts = [*self._functions, ["@json_workflow(WORKFLOW)", *block.lines]]
        definition = printed(self._definition(), before="WORKFLOW = ")
        code = "\n\n\n".join("\n".join(part) for part in parts)
        head = "\n".join([*self._docstring(), "", *self._imports("\n".join([*definition, code])), "", *definition])
        return f"{head}\n\n\n{code}\n"

    def _body(self, graph: Graph, id: str, what: str) -> str:
        """A function of its own for a body; those of its own bodies stand before it."""
        name = self._names.new(id, f"_{what}")
        block = Block()
        with block.within(f"async def {name}(run: Run) -> Any"):
            GraphCode(graph, block, self._names, self._body, workflow=self._id).write()
        self._functions.append(block.lines)
        return name

    def _definition(self) -> Node:
        graph = self._graph
        kwargs: dict[str, Node] = {"id": Text(self._id)}
        if graph.description:
            kwargs["description"] = Text(graph.description)
        if graph.input_schema:
            kwargs["input_schema"] = fields(graph.input_schema)
        if graph.output_schema:
            kwargs["output_schema"] = fields(graph.output_schema)
        if graph.variables:
            kwargs["variables"] = literal({name: variable.value for name, variable in graph.variables.items()})
            types = {name: one.type.value for name, one in graph.variables.items() if one.type is not None}
            kwargs |= {"variable_types": literal(types)} if types else {}
        if not graph.durable:
            kwargs["durable"] = Raw("False")
        if graph.track_events:
            kwargs["track_events"] = Raw("True")
        if graph.rate_limit_budget_ms != 60_000:
            kwargs["rate_limit_budget_ms"] = literal(graph.rate_limit_budget_ms)
        if graph.execution_timeout_seconds is not None:
            kwargs["timeout_seconds"] = literal(graph.execution_timeout_seconds)
        connections = sorted(connections_of(graph))
        if connections:
            kwargs["connections"] = texts(connections)
        return Call("Definition", (), kwargs)

    def _docstring(self) -> list[str]:
        title = " ".join((self._graph.name or self._id).split()).replace("\\", "/").replace('"', "'")
        title = "".join(c for c in title if c.isprintable())[:100].rstrip(".")
        return [
            f'"""{title}.',
            "",
            f"Compiled from the JSON workflow `{self._id}` by `runtara dsl compile`: change that one instead.",
            '"""',
        ]

    def _imports(self, code: str) -> list[str]:
        """Only what is used. Words in texts of the document may add one too many, so code is looked at without them."""
        used = sorted(set(_USED.findall(_without_texts(code))), key=_as_sorted)
        lines = ["from collections.abc import Sequence"] if "Sequence[" in code else []
        one = f"from runtara.dsl.runtime import {', '.join(used)}"
        many = ["from runtara.dsl.runtime import (", *(f"    {name}," for name in used), ")"]
        return [
            *lines, "from typing import Any", "",
            *([one] if len(one) <= WIDTH else many), "from runtara.sdk import Context",
        ]  # fmt: skip


def _as_sorted(name: str) -> tuple[int, str]:
    """As import sorters do: classes before functions."""
    return (0 if name[0].isupper() else 1, name)


def _without_texts(code: str) -> str:
    return re.sub(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|#.*", "", code)


def connections_of(graph: Graph) -> set[str]:
    """The names of connections that steps of the graph and of its bodies are given."""
    return {name for step in _steps(graph) if isinstance(step, AgentStep) for name in _named(step, graph.variables)}


def embedded(graph: Graph) -> set[str]:
    """The ids of the workflows that the graph and its bodies embed."""
    return {step.child_workflow_id for step in _steps(graph) if isinstance(step, EmbedWorkflowStep)}


def _steps(graph: Graph) -> Iterator[BaseStep]:
    """Those of the graph and of its bodies."""
    for step in graph.steps.values():
        yield step
        match step:
            case SplitStep() | WhileStep():
                yield from _steps(step.subgraph)
            case WaitForSignalStep() if step.on_wait is not None:
                yield from _steps(step.on_wait)
            case _:
                pass


def _named(step: AgentStep, constants: Mapping[str, Variable]) -> set[str]:
    """The connection that a step is given, as far as that is known before it runs; another one is refused then."""
    name: object = step.connection_id
    match step.connection_ref:
        case Immediate(value=found):
            name = found
        case Reference(path=Path(root="variables", parts=(str() as variable,))) if variable in constants:
            name = constants[variable].value
        case _:
            pass
    return {name} if isinstance(name, str) and is_id(name) else set()
