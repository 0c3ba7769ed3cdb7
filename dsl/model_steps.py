"""Graphs and their steps, one class a `stepType`; they hold each other. Times are in milliseconds."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from .model_base import Model
from .model_conditions import Condition, MatchOperator
from .model_schema import Schema, Variable
from .model_values import InputMapping, Value, as_value, literal_or_value

MAX_ID: Final = 128  # characters of a step's id: it is a part of keys, which have 1,024
MAX_MS: Final = 10 * 365 * 24 * 3600 * 1000  # ten years: longer is a mistake in the unit
MAX_COUNT: Final = 2**31 - 1

Milliseconds = Annotated[StrictInt, Field(ge=0, le=MAX_MS)]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_COUNT)]
PlainOrValue = Annotated[Value, BeforeValidator(as_value)]
LiteralOrValue = Annotated[Value, BeforeValidator(literal_or_value)]
StepId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Category(StrEnum):
    TRANSIENT = "transient"  # trying again may help
    PERMANENT = "permanent"


class ErrorSeverity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class BaseStep(Model):
    """What all steps have."""

    id: StepId
    name: str | None = None
    durable: StrictBool | None = Field(default=None, description="false: nothing of the step is recorded")
    breakpoint: StrictBool = Field(default=False, description="waits for the signal `_continue` before it runs")

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.id


class FinishStep(BaseStep):
    """Ends the graph; its result is the mapped object."""

    step_type: Literal["Finish"] = "Finish"
    input_mapping: InputMapping = Field(default_factory=dict)


class AgentStep(BaseStep):
    """Calls a capability of an agent."""

    step_type: Literal["Agent"] = "Agent"
    agent_id: str
    capability_id: str
    input_mapping: InputMapping = Field(default_factory=dict)
    connection_id: str | None = Field(default=None, description="the name of a connection")
    connection_ref: Value | None = Field(default=None, description="the name of a connection, as a value")
    max_retries: Count = Field(default=3, description="after the first try")
    retry_delay: Milliseconds = Field(default=1000, description="before the first retry")
    timeout: Milliseconds | None = Field(default=None, description="of one try")


class ConditionalStep(BaseStep):
    """Goes on by its edge `true` or `false`."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    step_type: Literal["Conditional"] = "Conditional"
    condition: Condition


class SwitchCase(Model):
    """`output` is plain JSON, in which objects with a `valueType` are values."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"match", "output"})

    match_type: MatchOperator
    match: JsonValue = None
    output: LiteralOrValue
    route: str | None = Field(default=None, description="the label of the edge to go on by")


class SwitchConfig(Model):
    keeps_null: ClassVar[frozenset[str]] = frozenset({"default"})

    value: Value
    cases: list[SwitchCase] = Field(default_factory=list)
    default: LiteralOrValue | None = Field(default=None, description="the output where no case matches")


class SwitchStep(BaseStep):
    """Gives the output of the first case that matches; with routes, goes on by that case's edge."""

    step_type: Literal["Switch"] = "Switch"
    config: SwitchConfig

    @property
    def routes(self) -> frozenset[str]:
        """The routes of its cases; empty: it does not route."""
        return frozenset(case.route for case in self.config.cases if case.route is not None)


class SplitConfig(Model):
    value: Value
    parallelism: Count | None = Field(
        default=None, description="bodies at once; 0 or absent: as many as the engine allows"
    )
    sequential: StrictBool = False
    dont_stop_on_failed: StrictBool = False
    variables: InputMapping = Field(default_factory=dict, description="what the body sees as `variables.*`")
    batch_size: Count = Field(default=0, description="items a body gets at once, as an array; 0: one item, as itself")
    max_retries: Count = Field(default=0, description="of each item's body")
    retry_delay: Milliseconds = 1000
    timeout: Milliseconds | None = Field(default=None, description="of the whole step")
    allow_null: StrictBool = Field(default=False, description="null is an empty array")
    convert_single_value: StrictBool = Field(default=False, description="what is no array is an array of one")


class SplitStep(BaseStep):
    """Runs its subgraph for each item of an array."""

    step_type: Literal["Split"] = "Split"
    subgraph: "Graph"
    config: SplitConfig
    input_schema: Schema = Field(default_factory=dict, description="of each item")
    output_schema: Schema = Field(default_factory=dict, description="of each result")


class WhileConfig(Model):
    max_iterations: Count = 10
    timeout: Milliseconds | None = Field(default=None, description="of the whole step")
    variables: InputMapping = Field(default_factory=dict, description="what the body sees as `variables.*`")


class WhileStep(BaseStep):
    """Runs its subgraph as long as the condition holds."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    step_type: Literal["While"] = "While"
    condition: Condition
    subgraph: "Graph"
    config: WhileConfig = Field(default_factory=WhileConfig)


class FilterConfig(Model):
    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    value: Value
    condition: Condition = Field(description="over `item`")


class FilterStep(BaseStep):
    """Keeps the items of an array for which the condition holds."""

    step_type: Literal["Filter"] = "Filter"
    config: FilterConfig


class GroupByConfig(Model):
    value: Value
    key: str = Field(description="a path within an item")
    expected_keys: list[str] = Field(default_factory=list, description="groups that are there even when empty")


class GroupByStep(BaseStep):
    """Groups the items of an array."""

    step_type: Literal["GroupBy"] = "GroupBy"
    config: GroupByConfig


def _child_version(raw: object) -> object:
    """`latest`, or a number from 1; as a text too, which editors write."""
    if raw == "latest":
        return raw
    number = (
        int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) < len(str(MAX_COUNT)) else raw
    )
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_COUNT:
        raise PydanticCustomError(
            "E050", '{version} is no version: write "latest" or a number from 1', {"version": repr(raw)}
        )
    return number


class EmbedWorkflowStep(BaseStep):
    """Runs another workflow as a child instance; its outputs are the child's result."""

    step_type: Literal["EmbedWorkflow"] = "EmbedWorkflow"
    child_workflow_id: str
    child_version: Annotated[int | Literal["latest"], BeforeValidator(_child_version)] = "latest"
    input_mapping: InputMapping = Field(default_factory=dict)
    max_retries: Count = Field(default=3, description="after the first try")
    retry_delay: Milliseconds = 1000
    timeout: Milliseconds | None = Field(default=None, description="of one try")


class DelayStep(BaseStep):
    """A durable sleep."""

    step_type: Literal["Delay"] = "Delay"
    duration_ms: PlainOrValue


class SignalAction(Model):
    """What a person is asked to do: shown with the wait."""

    key: str | None = None
    correlation: InputMapping = Field(default_factory=dict)
    context: InputMapping = Field(default_factory=dict)


class WaitForSignalStep(BaseStep):
    """Waits for a signal; its outputs are the signal's payload."""

    step_type: Literal["WaitForSignal"] = "WaitForSignal"
    timeout_ms: PlainOrValue | None = None
    response_schema: Schema = Field(default_factory=dict)
    on_wait: "Graph | None" = Field(default=None, description="runs before the wait, with `variables._signal_id`")
    action: SignalAction | None = None


class LogStep(BaseStep):
    """Writes into the event log."""

    step_type: Literal["Log"] = "Log"
    level: Level = Level.INFO
    message: str
    context: InputMapping = Field(default_factory=dict)


class ErrorStep(BaseStep):
    """Fails the graph with a structured error."""

    step_type: Literal["Error"] = "Error"
    code: Annotated[str, Field(min_length=1)]
    message: str
    category: Category = Category.PERMANENT
    severity: ErrorSeverity = ErrorSeverity.ERROR
    context: InputMapping = Field(default_factory=dict)


STEP_TYPES: Final[dict[str, type[BaseStep]]] = {
    "Finish": FinishStep,
    "Agent": AgentStep,
    "Conditional": ConditionalStep,
    "Switch": SwitchStep,
    "Split": SplitStep,
    "While": WhileStep,
    "Filter": FilterStep,
    "GroupBy": GroupByStep,
    "EmbedWorkflow": EmbedWorkflowStep,
    "Delay": DelayStep,
    "WaitForSignal": WaitForSignalStep,
    "Log": LogStep,
    "Error": ErrorStep,
}
STEP_TYPE_ALIASES: Final = {"StartScenario": "EmbedWorkflow"}
"""Spellings of the language's first generation."""

Step = Annotated[
    FinishStep
    | AgentStep
    | ConditionalStep
    | SwitchStep
    | SplitStep
    | WhileStep
    | FilterStep
    | GroupByStep
    | EmbedWorkflowStep
    | DelayStep
    | WaitForSignalStep
    | LogStep
    | ErrorStep,
    Field(discriminator="step_type"),
]

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


for _step in (SplitStep, WhileStep, WaitForSignalStep):
    _step.model_rebuild()
Graph.model_rebuild()
