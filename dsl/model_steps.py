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

    id: StepId = Field(description="the key it stands under; may be left out")
    name: str | None = Field(default=None, description="what people call it; each name once in a graph")
    durable: StrictBool | None = Field(default=None, description="false: nothing of the step is recorded")
    breakpoint: StrictBool = Field(default=False, description="waits for the signal `_continue` before it runs")

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.id


class FinishStep(BaseStep):
    """Ends the graph. The mapped object is its result."""

    step_type: Literal["Finish"] = "Finish"
    input_mapping: InputMapping = Field(default_factory=dict, description="the result's fields")


class AgentStep(BaseStep):
    """Calls a capability of an agent. Outputs: what it returns."""

    step_type: Literal["Agent"] = "Agent"
    agent_id: str = Field(description="as `runtara agents list` names them")
    capability_id: str = Field(description="as `runtara agents show AGENT` names them")
    input_mapping: InputMapping = Field(default_factory=dict, description="the capability's inputs")
    connection_id: str | None = Field(default=None, description="the name of a connection")
    connection_ref: Value | None = Field(default=None, description="the name of a connection, as a value")
    max_retries: Count = Field(default=3, description="after the first try")
    retry_delay: Milliseconds = Field(default=1000, description="ms before the first retry")
    timeout: Milliseconds | None = Field(default=None, description="ms that one try may take")


class ConditionalStep(BaseStep):
    """Goes on by its edge `true` or `false`. Outputs: `{result}`."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    step_type: Literal["Conditional"] = "Conditional"
    condition: Condition = Field(description="which of the two")


def _plain_match(raw: object) -> object:
    """An immediate value may be written out, as it may everywhere else."""
    if not isinstance(raw, dict) or "valueType" not in raw:
        return raw
    if raw["valueType"] != "immediate":
        raise PydanticCustomError("E025", "a match is plain JSON or an immediate value: it cannot refer to anything")
    return raw.get("value")


class SwitchCase(Model):
    """A case: how it matches, and what it gives."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"match", "output"})

    match_type: MatchOperator = Field(description="how it is compared")
    match: Annotated[JsonValue, BeforeValidator(_plain_match)] = Field(
        default=None, description="what the value is compared with"
    )
    output: LiteralOrValue = Field(description="plain JSON, in which objects with a `valueType` are values")
    route: str | None = Field(default=None, description="the label of the edge to go on by")


class SwitchConfig(Model):
    keeps_null: ClassVar[frozenset[str]] = frozenset({"default"})

    value: Value = Field(description="what is compared")
    cases: list[SwitchCase] = Field(default_factory=list, description="tried in order")
    default: LiteralOrValue | None = Field(default=None, description="the output where no case matches")


class SwitchStep(BaseStep):
    """Finds the first case that matches; with routes, goes on by that case's edge. Outputs: the case's output."""

    step_type: Literal["Switch"] = "Switch"
    config: SwitchConfig = Field(description="see below")

    @property
    def routes(self) -> frozenset[str]:
        """The routes of its cases; empty: it does not route."""
        return frozenset(case.route for case in self.config.cases if case.route is not None)


class SplitConfig(Model):
    value: Value = Field(description="the array")
    parallelism: Count | None = Field(
        default=None, description="bodies at once; 0 or absent: as many as the engine allows"
    )
    sequential: StrictBool = Field(default=False, description="one body after the other")
    dont_stop_on_failed: StrictBool = Field(default=False, description="go on with the others, and tell which failed")
    variables: InputMapping = Field(default_factory=dict, description="what the body sees as `variables.*`")
    batch_size: Count = Field(default=0, description="items a body gets at once, as an array; 0: one item, as itself")
    max_retries: Count = Field(default=0, description="of each item's body")
    retry_delay: Milliseconds = Field(default=1000, description="ms before the first retry")
    timeout: Milliseconds | None = Field(default=None, description="ms that the whole step may take")
    allow_null: StrictBool = Field(default=False, description="null is an empty array")
    convert_single_value: StrictBool = Field(default=False, description="what is no array is an array of one")


class SplitStep(BaseStep):
    """Runs its subgraph for each item of an array. Outputs: the results in the items' order; with `dontStopOnFailed`
    `{data: {success, error, aborted, unknown, skipped}, stats, hasFailures}`."""

    step_type: Literal["Split"] = "Split"
    subgraph: "Graph" = Field(description="its Finish gives the item's result")
    config: SplitConfig = Field(description="see below")
    input_schema: Schema = Field(default_factory=dict, description="of each item")
    output_schema: Schema = Field(default_factory=dict, description="of each result")


class WhileConfig(Model):
    max_iterations: Count = Field(default=10, description="rounds at most")
    timeout: Milliseconds | None = Field(default=None, description="ms that the whole step may take")
    variables: InputMapping = Field(default_factory=dict, description="what the body sees as `variables.*`")


class WhileStep(BaseStep):
    """Runs its subgraph as long as the condition holds. Outputs: `{iterations, outputs}`, those of the last round."""

    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    step_type: Literal["While"] = "While"
    condition: Condition = Field(description="asked before each round")
    subgraph: "Graph" = Field(description="its Finish gives the round's outputs")
    config: WhileConfig = Field(default_factory=WhileConfig, description="see below")


class FilterConfig(Model):
    keeps_null: ClassVar[frozenset[str]] = frozenset({"condition"})

    value: Value = Field(description="the array")
    condition: Condition = Field(description="over `item`")


class FilterStep(BaseStep):
    """Keeps the items of an array for which the condition holds. Outputs: `{items, count}`."""

    step_type: Literal["Filter"] = "Filter"
    config: FilterConfig = Field(description="see below")


class GroupByConfig(Model):
    value: Value = Field(description="the array")
    key: str = Field(description="a path within an item")
    expected_keys: list[str] = Field(default_factory=list, description="groups that are there even when empty")


class GroupByStep(BaseStep):
    """Groups the items of an array. Outputs: `{groups, counts, total_groups}`."""

    step_type: Literal["GroupBy"] = "GroupBy"
    config: GroupByConfig = Field(description="see below")


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
    """Runs another workflow as a child instance. Outputs: the child's result."""

    step_type: Literal["EmbedWorkflow"] = "EmbedWorkflow"
    child_workflow_id: str = Field(description="its id; a JSON workflow's is its file's stem")
    child_version: Annotated[int | Literal["latest"], BeforeValidator(_child_version)] = Field(
        default="latest", description="of a registered workflow"
    )
    input_mapping: InputMapping = Field(default_factory=dict, description="the child's `data`; it sees nothing else")
    max_retries: Count = Field(default=3, description="after the first try")
    retry_delay: Milliseconds = Field(default=1000, description="ms before the first retry")
    timeout: Milliseconds | None = Field(default=None, description="ms that one try may take")


class DelayStep(BaseStep):
    """A durable sleep."""

    step_type: Literal["Delay"] = "Delay"
    duration_ms: PlainOrValue = Field(description="ms")


class SignalAction(Model):
    """What a person is asked to do: shown with the wait."""

    key: str | None = Field(default=None, description="what kind of action it is")
    correlation: InputMapping = Field(default_factory=dict, description="what it belongs to")
    context: InputMapping = Field(default_factory=dict, description="what helps to decide")


class WaitForSignalStep(BaseStep):
    """Waits for a signal. Outputs: its payload.

    The signal is called as the step: `approve`; in a body, behind the step that has the body and the index:
    `lines-0-approve`. An id that a signal cannot have gives `signal-` and a hash. `variables._signal_id` has the name,
    and so has the event `waiting_for_signal`, which is written if there is an `action`.
    """

    step_type: Literal["WaitForSignal"] = "WaitForSignal"
    timeout_ms: PlainOrValue | None = Field(default=None, description="ms after which the step fails")
    response_schema: Schema = Field(default_factory=dict, description="of the payload")
    on_wait: "Graph | None" = Field(default=None, description="runs before the wait, with `variables._signal_id`")
    action: SignalAction | None = Field(default=None, description="see below")


class LogStep(BaseStep):
    """Writes into the event log."""

    step_type: Literal["Log"] = "Log"
    level: Level = Field(default=Level.INFO, description="how much it matters")
    message: str = Field(description="as it is; what changes belongs into `context`")
    context: InputMapping = Field(default_factory=dict, description="what is written beside the message")


class ErrorStep(BaseStep):
    """Fails the graph with a structured error."""

    step_type: Literal["Error"] = "Error"
    code: str = Field(min_length=1, description="for programs, such as CREDIT_LIMIT_EXCEEDED")
    message: str = Field(description="for people, as it is; what changes belongs into `context`")
    category: Category = Field(default=Category.PERMANENT, description="whether trying again may help")
    severity: ErrorSeverity = Field(default=ErrorSeverity.ERROR, description="how much it matters")
    context: InputMapping = Field(default_factory=dict, description="the error's attributes")


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

    from_step: str = Field(description="a step's id")
    to_step: str = Field(description="a step's id")
    label: Label = Field(default=None, description="`next` is the normal way too")
    condition: Condition | None = Field(default=None, description="whether it is taken")
    priority: StrictInt | None = Field(default=None, description="of conditional edges; the highest is tried first")


class Graph(Model):
    """Steps and the edges between them."""

    name: str | None = Field(default=None, description="what people call it")
    description: str | None = Field(default=None, description="what it is for")
    steps: dict[str, Step] = Field(description="id → step")
    entry_point: str = Field(default="", description="may be left out where exactly one step has no incoming edge")
    execution_plan: list[Edge] = Field(default_factory=list, description="the edges")
    variables: dict[str, Variable] = Field(default_factory=dict, description="named constants")
    input_schema: Schema = Field(default_factory=dict, description="of `data`")
    output_schema: Schema = Field(default_factory=dict, description="of the result")
    durable: StrictBool = Field(default=True, description="false: no step is recorded")
    rate_limit_budget_ms: Milliseconds = Field(
        default=60_000, description="ms that one step may wait for rate limits, beside its retries"
    )
    execution_timeout_seconds: Annotated[StrictInt, Field(gt=0, le=MAX_MS // 1000)] | None = Field(
        default=None, description="seconds that an instance may take"
    )
    track_events: StrictBool = Field(default=False, description="record what goes into each step, and what comes out")

    notes: JsonValue = Field(default=None, description="of editors; carried, not read")
    nodes: JsonValue = Field(default=None, description="of editors; carried, not read")
    edges: JsonValue = Field(default=None, description="of editors; carried, not read")


for _step in (SplitStep, WhileStep, WaitForSignalStep):
    _step.model_rebuild()
Graph.model_rebuild()
