"""A document: the graph of a workflow. These records are what the validator checks and the compiler reads.

`parse.parse` makes them; what it made is frozen and knows the JSON names by alias. Subgraphs are graphs of their own.
"""

from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from . import model_steps
from .model_base import Model
from .model_conditions import Condition, MatchType, Operation, Operator
from .model_schema import FieldType, Schema, SchemaField, Variable
from .model_steps import (
    AgentStep,
    BaseStep,
    ConditionalStep,
    DelayStep,
    EmbedWorkflowStep,
    ErrorStep,
    FilterStep,
    FinishStep,
    GroupByStep,
    LogStep,
    Milliseconds,
    SplitStep,
    Step,
    SwitchStep,
    WaitForSignalStep,
    WhileStep,
)
from .model_values import Composite, Immediate, InputMapping, Reference, Template, Value, ValueType

ON_ERROR = "onError"
DEFAULT_ROUTE = "default"

Label = Annotated[str | None, BeforeValidator(lambda raw: None if raw in ("", "next") else raw)]


class Edge(Model):
    """A way from a step to the next. `label` is None on the normal way."""

    from_step: str
    to_step: str
    label: Label = None
    condition: Condition | None = None
    priority: StrictInt | None = Field(default=None, description="of conditional edges; the highest is tried first")


class Graph(Model):
    """Steps and the edges between them."""

    name: str | None = None
    description: str | None = None
    steps: dict[str, Step]
    entry_point: str = Field(default="", description="may be left out where exactly one step has no incoming edge")
    execution_plan: list[Edge] = Field(default_factory=list)
    variables: dict[str, Variable] = Field(default_factory=dict)
    input_schema: Schema = Field(default_factory=dict)
    output_schema: Schema = Field(default_factory=dict)
    durable: StrictBool = True
    rate_limit_budget_ms: Milliseconds = 60_000
    execution_timeout_seconds: Annotated[StrictInt, Field(gt=0, le=10 * 365 * 24 * 3600)] | None = None
    track_events: StrictBool = False

    notes: JsonValue = Field(default=None, description="of editors; carried, not read")
    nodes: JsonValue = Field(default=None, description="of editors; carried, not read")
    edges: JsonValue = Field(default=None, description="of editors; carried, not read")


class Document(Model):
    """A graph in its envelope, which may hold run options; a graph alone is a document too."""

    execution_graph: Graph
    name: str | None = None
    description: str | None = None
    durable: StrictBool | None = None
    track_events: StrictBool | None = None


for _step in model_steps.STEP_TYPES.values():
    _step.model_rebuild(_types_namespace={"Graph": Graph})
Graph.model_rebuild()
Document.model_rebuild()

__all__ = [
    "DEFAULT_ROUTE",
    "ON_ERROR",
    "AgentStep",
    "BaseStep",
    "Composite",
    "Condition",
    "ConditionalStep",
    "DelayStep",
    "Document",
    "Edge",
    "EmbedWorkflowStep",
    "ErrorStep",
    "FieldType",
    "FilterStep",
    "FinishStep",
    "Graph",
    "GroupByStep",
    "Immediate",
    "InputMapping",
    "LogStep",
    "MatchType",
    "Operation",
    "Operator",
    "Reference",
    "Schema",
    "SchemaField",
    "SplitStep",
    "Step",
    "SwitchStep",
    "Template",
    "Value",
    "ValueType",
    "Variable",
    "WaitForSignalStep",
    "WhileStep",
]
