"""A document: the graph of a workflow. These records are what the validator checks and the compiler reads.

`parse.parse` makes them; what it made is frozen and knows the JSON names by alias. Subgraphs are graphs of their own.
"""

from pydantic import StrictBool

from .model_base import Model
from .model_conditions import Condition, MatchType, Operation, Operator
from .model_schema import FieldType, Schema, SchemaField, Variable
from .model_steps import (
    DEFAULT_ROUTE,
    ON_ERROR,
    AgentStep,
    BaseStep,
    ConditionalStep,
    DelayStep,
    Edge,
    EmbedWorkflowStep,
    ErrorStep,
    FilterStep,
    FinishStep,
    Graph,
    GroupByStep,
    LogStep,
    SplitStep,
    Step,
    SwitchStep,
    WaitForSignalStep,
    WhileStep,
)
from .model_values import Composite, Immediate, InputMapping, Reference, Template, Value, ValueType


class Document(Model):
    """A graph in its envelope, which may hold run options; a graph alone is a document too."""

    execution_graph: Graph
    name: str | None = None
    description: str | None = None
    durable: StrictBool | None = None
    track_events: StrictBool | None = None


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
