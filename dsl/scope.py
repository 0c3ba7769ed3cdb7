"""What the values of a graph see: the roots, their shapes, and how they are handed on to subgraphs.

The run time builds the same scopes with data in them; the tests that run what validates hold the two together.

Invariants: a scope is made once a graph and never changes; what a step gives is worked out when it is first asked for.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Final, assert_never

from . import shapes
from .model import (
    AgentStep,
    Composite,
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
    Operator,
    Reference,
    SplitStep,
    Step,
    SwitchStep,
    Template,
    ValueType,
    WaitForSignalStep,
    WhileStep,
)
from .model_conditions import Condition
from .order import Order
from .paths import Path, PathError
from .places import Place
from .shapes import UNKNOWN, Found, Shape, follow
from .walk import Sees
from .world import World, output_of

ERROR: Final = "__error"
"""The id under which `steps` has the failure that a handler handles; `error` is its alias."""

ALIASES: Final = {"scenario": "workflow"}
_ANYWHERE: Final = "anywhere"
_IN_SPLIT: Final = "the body of a Split"
_IN_WHILE: Final = "the body of a While"
ROOTS_WHERE: Final = {
    "data": (_ANYWHERE, "the input's `data`; in the body of a Split the item"),
    "variables": (_ANYWHERE, "the graph's own, in a subgraph also those of `config.variables`; and the built-in ones"),
    "steps": (_ANYWHERE, "what the steps of this graph have given: `steps.<id>.outputs`"),
    "workflow": (_ANYWHERE, "`workflow.inputs`: the whole input"),
    "item": (f"{_IN_SPLIT}, the condition of a Filter", "the item"),
    "loop": (
        f"{_IN_WHILE}, its condition and its `config.variables`",
        "`loop.index` from 0, `loop.outputs` of the last round",
    ),
    "error": (
        "after an `onError` edge",
        "`code, message, category, severity, stepId, attributes`; also `steps.__error`",
    ),
}
BUILT_IN_WHERE: Final = {
    "_workflow_id": (_ANYWHERE, "the workflow and the instance"),
    "_instance_id": (_ANYWHERE, "the instance"),
    "_tenant_id": (_ANYWHERE, "the tenant"),
    "_index": ("the body of a Split or While", "from 0"),
    "_loop_indices": ("the body of a Split or While", "the indices of all bodies around, the outermost first"),
    "_item": (_IN_SPLIT, "the item"),
    "_loop": (_IN_WHILE, "`loop`"),
    "_previousOutputs": (_IN_WHILE, "`loop.outputs`"),
    "_signal_id": ("the graph `onWait`", "the name of the signal that is waited for"),
}
ROOTS: Final = tuple(ROOTS_WHERE)
BUILT_IN: Final = frozenset(BUILT_IN_WHERE)

_ERROR_SHAPE: Final = shapes.record(
    {
        **dict.fromkeys(("code", "message", "category", "severity", "stepId"), shapes.TEXT),
        "attributes": shapes.OBJECT,
    }
)
_IDS: Final = dict.fromkeys(("_workflow_id", "_instance_id", "_tenant_id"), shapes.TEXT)
_OF_BODIES: Final = {"_index": shapes.INTEGER, "_loop_indices": shapes.array(shapes.INTEGER)}


class Scope:
    """Of one graph. `at` is its place in the document, `step` the path of the step whose subgraph it is."""

    def __init__(
        self,
        graph: Graph,
        *,
        world: World,
        at: Place,
        step: str | None,
        data: Shape,
        inputs: Shape,
        variables: Mapping[str, Shape],
        built_in: Mapping[str, Shape],
        item: Shape | None = None,
        loop: Shape | None = None,
        around: "tuple[Scope, str] | None" = None,
    ) -> None:
        self.graph = graph
        self.world = world
        self.at = at
        self.step = step
        self.data = data
        self.inputs = inputs
        self.variables = variables
        self.built_in = built_in
        self.item = item
        self.loop = loop
        self.around = around
        """For the graph that runs before a wait: the scope around it, whose steps it sees, and the step that waits."""
        self._children: dict[str, Scope] = {}
        self._outputs: dict[str, Shape] = {}

    @cached_property
    def order(self) -> Order:
        return Order(self.graph)

    def path_of(self, id: str) -> str:
        """A step's id with those of the steps around it."""
        return id if self.step is None else f"{self.step}/{id}"

    def sees_error(self, id: str) -> bool:
        """Whether a failure may have led to the step."""
        if id in self.order.handling:
            return True
        return self.around is not None and self.around[0].sees_error(self.around[1])

    # shapes

    def root(self, name: str, sees: Sees) -> Shape | None:
        """The shape of a root other than `steps`; None if there is no such root here."""
        match ALIASES.get(name, name):
            case "data":
                return self.data
            case "variables":
                return shapes.record({**self.variables, **self.built_in})
            case "workflow":
                return shapes.record({"inputs": self.inputs})
            case "item":
                return UNKNOWN if sees is Sees.ITEM else self.item
            case "loop":
                return _LOOP if sees is Sees.LOOP else self.loop
            case "error":
                return _ERROR_SHAPE
            case _:
                return None

    def start(self, path: Path, sees: Sees) -> tuple[Shape, tuple[str | int, ...]] | None:
        """Where a path begins, and what of it is left to follow; None if it begins nowhere."""
        if path.root != "steps":
            shape = self.root(path.root, sees)
            return None if shape is None else (shape, path.parts)
        id = path.parts[0] if path.parts else None
        if id == ERROR:
            return _ERROR_SHAPE, path.parts[1:]
        owner = self.owner(id) if isinstance(id, str) else None
        if owner is None or not isinstance(id, str):
            return None
        texts = dict.fromkeys(("stepId", "stepName", "stepType"), shapes.TEXT)
        return shapes.record({**texts, "outputs": owner.outputs(id)}), path.parts[1:]

    def owner(self, id: str) -> "Scope | None":
        """The scope that has the step, of those whose steps are seen here."""
        if id in self.graph.steps:
            return self
        return None if self.around is None else self.around[0].owner(id)

    def shape(self, value: Condition, sees: Sees = Sees.GRAPH) -> Shape:
        match value:
            case Immediate():
                return shapes.of_json(value.value)
            case Template():
                return shapes.TEXT
            case Operation():
                return shapes.INTEGER if value.op is Operator.LENGTH else shapes.BOOLEAN
            case Composite(value=dict() as fields):
                return shapes.record({name: self.shape(inner, sees) for name, inner in fields.items()})
            case Composite():
                return shapes.array()
            case Reference(type=ValueType() as kind) if kind in _TYPED:
                return _TYPED[kind]
            case Reference():
                return UNKNOWN if value.has_default else self._followed(value, sees)
            case _:
                assert_never(value)

    def _followed(self, value: Reference, sees: Sees) -> Shape:
        try:
            start = self.start(value.path, sees)
        except PathError:
            return UNKNOWN
        found = None if start is None else follow(*start)
        return found.shape if isinstance(found, Found) else UNKNOWN

    def mapped(self, mapping: InputMapping) -> Shape:
        """Of the object that a mapping builds."""
        built = shapes.record({})
        for text, keys in shapes.destinations(mapping).items():
            built = shapes.with_field(built, keys, self.shape(mapping[text]))
        return built

    def outputs(self, id: str) -> Shape:
        """Of `steps.<id>.outputs`."""
        if id not in self._outputs:
            self._outputs[id] = UNKNOWN  # for a step that reads itself, in however wide a circle
            self._outputs[id] = self._given_by(id, self.graph.steps[id])
        return self._outputs[id]

    def result(self) -> Shape:
        """Of what the graph gives; known where one Finish gives it."""
        ends = [step for step in self.graph.steps.values() if isinstance(step, FinishStep)]
        return self.mapped(ends[0].input_mapping) if len(ends) == 1 and ends[0].input_mapping else UNKNOWN

    def _given_by(self, id: str, step: Step) -> Shape:
        match step:
            case AgentStep():
                capability = self.world.capability(step.agent_id, step.capability_id)
                return UNKNOWN if capability is None else output_of(capability)
            case ConditionalStep():
                return shapes.record({"result": shapes.BOOLEAN})
            case SplitStep():
                results = shapes.array(self.child(id).result())
                return _split_outputs(results) if step.config.dont_stop_on_failed else results
            case WhileStep():
                return shapes.record({"iterations": shapes.INTEGER, "outputs": self.child(id).result()})
            case FilterStep():
                items = self.shape(step.config.value).items
                return shapes.record({"items": shapes.array(items or UNKNOWN), "count": shapes.INTEGER})
            case GroupByStep():
                return shapes.record({"groups": shapes.OBJECT, "counts": shapes.OBJECT, "total_groups": shapes.INTEGER})
            case EmbedWorkflowStep():
                child = self.world.child(step)
                return UNKNOWN if child is None else _at_least(shapes.of_schema(child.output_schema))
            case WaitForSignalStep():
                return _at_least(shapes.of_schema(step.response_schema))
            case DelayStep() | LogStep() | ErrorStep() | FinishStep() | SwitchStep():
                return UNKNOWN
            case _:
                assert_never(step)

    # subgraphs

    def child(self, id: str, field: str = "subgraph") -> "Scope":
        """The scope of a step's subgraph."""
        if id not in self._children:
            self._children[id] = self._child(id, self.graph.steps[id], (*self.at, "steps", id, field))
        return self._children[id]

    def _child(self, id: str, step: Step, at: Place) -> "Scope":
        match step:
            case SplitStep():
                item = self._item(step)
                return self._made(
                    id, step.subgraph, at, data=item, item=item,
                    passed=_passed(step.config.variables), built_in={**_IDS, **_OF_BODIES, "_item": item},
                )  # fmt: skip
            case WhileStep():
                built_in = {**_IDS, **_OF_BODIES, "_loop": _LOOP, "_previousOutputs": UNKNOWN}
                return self._made(
                    id, step.subgraph, at, loop=_LOOP, passed=_passed(step.config.variables), built_in=built_in
                )  # fmt: skip
            case WaitForSignalStep(on_wait=Graph() as graph):
                built_in = {**self.built_in, "_signal_id": shapes.TEXT}
                return self._made(id, graph, at, passed=self.variables, built_in=built_in, around=(self, id))
            case _:
                raise ValueError(f"a {step.step_type} has no subgraph")

    def _made(
        self,
        id: str,
        graph: Graph,
        at: Place,
        *,
        passed: Mapping[str, Shape],
        built_in: Mapping[str, Shape],
        data: Shape | None = None,
        item: Shape | None = None,
        loop: Shape | None = None,
        around: "tuple[Scope, str] | None" = None,
    ) -> "Scope":
        return Scope(
            graph,
            world=self.world,
            at=at,
            step=self.path_of(id),
            data=self.data if data is None else data,
            inputs=self.inputs,
            variables={**_declared(graph), **passed},
            built_in=built_in,
            item=self.item if item is None else item,
            loop=self.loop if loop is None else loop,
            around=around,
        )

    def _item(self, step: SplitStep) -> Shape:
        """Of what a body gets."""
        whole = self.shape(step.config.value)
        item = (whole.items or UNKNOWN) if whole.kind == "array" else UNKNOWN
        if step.input_schema:
            item = _at_least(shapes.of_schema(step.input_schema))
        return shapes.array(item) if step.config.batch_size else item


def root_scope(graph: Graph, world: World, *, at: Place) -> Scope:
    """Of a workflow's own graph."""
    data = shapes.of_schema(graph.input_schema)
    return Scope(
        graph,
        world=world,
        at=at,
        step=None,
        data=data,
        inputs=shapes.record({"data": data, "variables": shapes.OBJECT}),
        variables=_declared(graph),
        built_in=_IDS,
    )


_LOOP: Final = shapes.record({"index": shapes.INTEGER, "outputs": UNKNOWN})
_TYPED: Final = {
    ValueType.STRING: shapes.TEXT,
    ValueType.INTEGER: shapes.INTEGER,
    ValueType.NUMBER: shapes.NUMBER,
    ValueType.BOOLEAN: shapes.BOOLEAN,
}


def _declared(graph: Graph) -> dict[str, Shape]:
    return {name: shapes.of_json(variable.value) for name, variable in graph.variables.items()}


def _passed(mapping: InputMapping) -> dict[str, Shape]:
    """They may be anything: what they are made of belongs to the scope around."""
    return dict.fromkeys(mapping, UNKNOWN)


def _at_least(shape: Shape) -> Shape:
    """What is checked against a schema may have more than it declares."""
    return replace(shape, open=True) if shape.kind == "object" else shape


def _split_outputs(results: Shape) -> Shape:
    outcomes = {"success": results, **dict.fromkeys(("error", "aborted", "unknown", "skipped"), shapes.array())}
    return shapes.record({"data": shapes.record(outcomes), "stats": shapes.OBJECT, "hasFailures": shapes.BOOLEAN})
