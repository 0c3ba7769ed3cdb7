"""One run of a graph: what its steps have put out, and everything that generated code can do with a step.

A `Run` is of one graph in one place: a body of a Split or While has one of its own for each item or turn, which sees of
the surroundings only what it is given. The steps' own work is in the modules beside this one, one kind a module.

Invariants: a step's record is readable as `steps.<id>` once the step has ended, and not before; whatever a step fails
with is a `StepError` that names it; a step does the same on a resumed run, without doing it again.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, cast

from runtara.sdk.context import Context

from ..conditions import holds
from ..values import MISSING, Scope, resolve, resolve_inputs
from . import tracing
from .agent import AgentCall, call_agent
from .child import ChildCall, call_child
from .definition import Definition
from .errors import Finished, StepError, step_error
from .records import Records
from .selecting import Case, choose, filtered, grouped
from .split import SplitOptions, split_items
from .step import Step
from .turns import LoopOptions, turn_by_turn
from .waiting import SignalWait, sleep, wait_for_signal, wait_to_continue

Graph = Callable[["Run"], Coroutine[Any, Any, Any]]
Work = Callable[[Any], Coroutine[Any, Any, Any]]


class Run:
    """Made by a compiled workflow; `inner` makes those of its bodies."""

    __slots__ = ("ctx", "definition", "durable", "extras", "indices", "inputs", "path", "scope", "steps")

    def __init__(
        self, ctx: Context, data: object, variables: Mapping[str, object] | None, definition: Definition
    ) -> None:
        given = {**definition.variables, **(variables or {})}
        self.ctx = ctx
        self.definition = definition
        self.durable = definition.durable
        self.indices: tuple[int, ...] = ()
        self.path: tuple[str, ...] = ()
        self.inputs: dict[str, object] = {"data": data, "variables": given}
        self.extras: Mapping[str, object] = {}
        self.steps = Records()
        self.scope = self._scope(data, given)

    def inner(
        self, at: Step, data: object, variables: Mapping[str, object], *, index: int | None = None,
        durable: bool = True, steps: Mapping[str, object] | None = None, **roots: object,
    ) -> "Run":  # fmt: skip
        """The run of the body of `at`. `index`: of the item or turn; `roots`: what else it reads, `item` or `loop`."""
        run = Run.__new__(Run)
        run.ctx, run.definition, run.inputs = self.ctx, self.definition, self.inputs
        run.durable = self.durable and durable
        run.indices = self.indices if index is None else (*self.indices, index)
        run.path = (*self.path, at.id) if index is None else (*self.path, at.id, str(index))
        run.extras = {**self.extras, **roots}
        run.steps = Records(steps or {})
        run.scope = run._scope(data, variables)
        return run

    def _scope(self, data: object, variables: Mapping[str, object]) -> Scope:
        known: dict[str, object] = {
            **variables,
            "_workflow_id": self.definition.id,
            "_instance_id": self.ctx.instance,
            "_tenant_id": self.ctx.tenant,
            "_loop_indices": list(self.indices),
        }
        workflow = {"inputs": self.inputs}
        return Scope({"data": data, "variables": known, "steps": self.steps, "workflow": workflow, **self.extras})

    # steps that decide

    async def conditional(self, id: str, condition: object, *, name: str = "", breakpoint: bool = False) -> bool:
        """Whether the condition holds: go on by `true`, or by `false`."""

        async def decide(_: object) -> dict[str, bool]:
            return {"result": holds(condition, self.scope)}

        outputs = await self._perform(Step(id, "Conditional", name or id), None, decide, breakpoint=breakpoint)
        return bool(outputs["result"])

    async def switch(
        self, id: str, value: object, cases: Sequence[Case], *, default: object = MISSING, routes: bool = False,
        name: str = "", breakpoint: bool = False,
    ) -> str:  # fmt: skip
        """The route of the first case that matches; `default` where none does."""
        route = "default"

        async def decide(found: object) -> object:
            nonlocal route
            route, output = choose(found, cases, default, self.scope)
            return {**output, "route": route} if routes and isinstance(output, dict) else output

        await self._perform(Step(id, "Switch", name or id), value, decide, breakpoint=breakpoint)
        if routes:
            self.steps[id]["route"] = route
        return route

    def holds(self, condition: object) -> bool:
        """Whether the condition of an edge is true."""
        return holds(condition, self.scope)

    # steps that work

    async def agent(
        self, id: str, agent: str, capability: str, inputs: Mapping[str, object], *, connection: object = None,
        max_retries: int = 3, retry_delay_ms: int = 1_000, timeout_ms: int | None = None, durable: bool = True,
        name: str = "", breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Call a capability, and again if it fails."""
        call = AgentCall(
            agent, capability, max_retries, retry_delay_ms, timeout_ms, self.definition.rate_limit_budget_ms
        )
        step = Step(id, "Agent", name or id)

        async def work(found: dict[str, object]) -> object:
            named = None if connection is None else resolve(connection, self.scope)
            return await call_agent(self.ctx, step.key, call, found, named, durable=self.durable and durable)

        await self._perform(step, inputs, work, as_inputs=True, breakpoint=breakpoint)

    async def embed(
        self, id: str, workflow: str, inputs: Mapping[str, object], *, version: int | None = None,
        max_retries: int = 3, retry_delay_ms: int = 1_000, timeout_ms: int | None = None, name: str = "",
        breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Run another workflow as a child, and again if it fails."""
        call = ChildCall(workflow, version, max_retries, retry_delay_ms, timeout_ms)
        step = Step(id, "EmbedWorkflow", name or id)

        async def work(found: dict[str, object]) -> object:
            return await call_child(self.ctx, step.key, call, found)

        await self._perform(step, inputs, work, as_inputs=True, breakpoint=breakpoint)

    async def filter(
        self, id: str, value: object, condition: object, *, name: str = "", breakpoint: bool = False
    ) -> None:
        """Keep the items for which the condition over `item` holds."""

        async def work(found: object) -> object:
            return filtered(found, condition, self.scope)

        await self._perform(Step(id, "Filter", name or id), value, work, breakpoint=breakpoint)

    async def group_by(
        self, id: str, value: object, key: str, *, expected_keys: Sequence[str] = (), name: str = "",
        breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Group the items by what `key` leads to in each."""

        async def work(found: object) -> object:
            return grouped(found, key, expected_keys)

        await self._perform(Step(id, "GroupBy", name or id), value, work, breakpoint=breakpoint)

    async def log(
        self, id: str, level: str, message: str, context: Mapping[str, object] | None = None, *, name: str = "",
        breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Write a line into the event log."""
        step = Step(id, "Log", name or id)

        async def work(found: object) -> None:
            line = {"level": level, "message": message, "context": tracing.shortened(found)}
            await self.ctx.emit("log", line, key=step.key)

        await self._perform(step, context or {}, work, breakpoint=breakpoint)

    # steps with a body

    async def split(
        self, id: str, value: object, body: Graph, *, variables: Mapping[str, object] | None = None,
        durable: bool = True, name: str = "", breakpoint: bool = False, options: SplitOptions = SplitOptions(),  # noqa: B008
    ) -> None:  # fmt: skip
        """Run `body` for each item."""
        step = Step(id, "Split", name or id)

        async def work(found: object) -> object:
            given = resolve_inputs(variables or {}, self.scope)

            def of_item(index: int, item: object) -> Coroutine[Any, Any, Any]:
                known = {**given, "_index": index, "_item": item}
                return self.inner(step, item, known, index=index, durable=durable, item=item).graph(body)

            return await split_items(self.ctx, step.key, found, of_item, options)

        await self._perform(step, value, work, breakpoint=breakpoint)

    async def loop(
        self, id: str, condition: object, body: Graph, *, max_iterations: int = 10, timeout_ms: int | None = None,
        variables: Mapping[str, object] | None = None, durable: bool = True, name: str = "", breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Run `body` as long as the condition holds."""
        step = Step(id, "While", name or id)

        def goes_on(loop: dict[str, object]) -> bool:
            return holds(condition, self.scope.with_roots(loop=loop))

        async def work(_: object) -> object:
            def turn(index: int, loop: dict[str, object]) -> Coroutine[Any, Any, Any]:
                given = resolve_inputs(variables or {}, self.scope.with_roots(loop=loop))
                known = {**given, "_index": index, "_loop": loop, "_previousOutputs": loop["outputs"]}
                data = self.scope.roots["data"]
                return self.inner(step, data, known, index=index, durable=durable, loop=loop).graph(body)

            return await turn_by_turn(self.ctx, step.key, goes_on, turn, LoopOptions(max_iterations, timeout_ms))

        await self._perform(step, None, work, breakpoint=breakpoint)

    # steps that wait

    async def delay(self, id: str, duration_ms: object, *, name: str = "", breakpoint: bool = False) -> None:
        """Sleep, if need be for months."""
        step = Step(id, "Delay", name or id)

        async def work(found: object) -> None:
            await sleep(self.ctx, step.key, found)

        await self._perform(step, duration_ms, work, breakpoint=breakpoint)

    async def wait_for_signal(
        self, id: str, *, timeout_ms: object = None, response_schema: Mapping[str, Any] | None = None,
        on_wait: Graph | None = None, action: Mapping[str, object] | None = None, name: str = "",
        breakpoint: bool = False,
    ) -> None:  # fmt: skip
        """Wait for a signal; `on_wait` runs before."""
        step = Step(id, "WaitForSignal", name or id)

        async def before(signal: str) -> None:
            if on_wait is not None:
                data, variables = self.scope.roots["data"], cast(dict[str, object], self.scope.roots["variables"])
                known = {**variables, "_signal_id": signal}
                await self.inner(step, data, known, steps=self.steps).graph(on_wait)

        async def work(found: dict[str, Any]) -> object:
            wait = SignalWait(
                (*self.path, step.id), found.get("timeout_ms"), response_schema or {}, found.get("action")
            )
            return await wait_for_signal(self.ctx, step.key, wait, before)

        await self._perform(step, {"timeout_ms": timeout_ms, "action": action}, work, breakpoint=breakpoint)

    # the ends

    async def finish(
        self, id: str, result: Mapping[str, object], *, name: str = "", breakpoint: bool = False
    ) -> object:
        """The result of the graph."""

        async def work(found: object) -> object:
            return found

        return await self._perform(Step(id, "Finish", name or id), result, work, breakpoint=breakpoint)

    async def error(
        self, id: str, code: str, message: str, *, category: str = "permanent", severity: str = "error",
        context: Mapping[str, object] | None = None, name: str = "", breakpoint: bool = False,
    ) -> StepError:  # fmt: skip
        """What the graph fails with."""

        async def work(found: dict[str, object]) -> StepError:
            return StepError(step=id, code=code, message=message, category=category, severity=severity, details=found)

        step = Step(id, "Error", name or id)
        failure: StepError = await self._perform(step, context or {}, work, breakpoint=breakpoint)
        return failure

    def caught(self, error: StepError) -> None:
        """Let the handler of a failed step read the error as `steps.__error`."""
        self.steps.caught(error.as_seen())

    async def graph(self, body: Graph) -> Any:
        """The result of a body."""
        try:
            return await body(self)
        except Finished as end:
            return end.result

    # every step

    async def _perform(
        self, step: Step, mapping: object, work: Work, *, as_inputs: bool = False, breakpoint: bool = False
    ) -> Any:
        if breakpoint:
            await wait_to_continue(self.ctx, step.key)
        trace = tracing.Trace(self.ctx, step) if self.definition.track_events else None
        try:
            if as_inputs and isinstance(mapping, Mapping):
                inputs: object = resolve_inputs(mapping, self.scope)
            else:
                inputs = resolve(mapping, self.scope)
            if trace is not None:
                await trace.started(inputs)
            outputs = await work(inputs)
        except Exception as exc:
            error = step_error(exc, step.id)
            if error is None:
                raise
            if trace is not None:
                await trace.failed(error)
            raise error from exc
        self.steps[step.id] = _record(step, outputs)
        if trace is not None:
            await trace.ended(outputs.as_seen() if isinstance(outputs, StepError) else outputs)
        return outputs


_BESIDE: Final[Mapping[str, tuple[str, ...]]] = {"Split": ("data", "stats", "hasFailures")}
"""What the Runtara engine has beside a step's outputs, as a Switch's route; documents read it as `steps.<id>.stats`."""


def _record(step: Step, outputs: object) -> dict[str, object]:
    """What is read under `steps.<id>`."""
    record: dict[str, object] = {
        "stepId": step.id, "stepName": step.name, "stepType": step.type, "outputs": outputs,
    }  # fmt: skip
    if isinstance(outputs, Mapping):
        record |= {name: outputs[name] for name in _BESIDE.get(step.type, ()) if name in outputs}
    return record
