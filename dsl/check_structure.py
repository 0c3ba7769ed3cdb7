"""Checks of a graph's structure: entry point, edges, what is reachable, parallel branches."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from .model import (
    ON_ERROR,
    AgentStep,
    ConditionalStep,
    DelayStep,
    Edge,
    EmbedWorkflowStep,
    ErrorStep,
    FinishStep,
    SplitStep,
    Step,
    WaitForSignalStep,
    WhileStep,
)
from .order import BRANCHES, labels_of
from .report import Report
from .scope import Scope
from .suggest import nearest

MAY_FAIL: Final = (AgentStep, SplitStep, EmbedWorkflowStep, WhileStep, WaitForSignalStep, DelayStep)
"""The steps that an `onError` edge may leave."""


def check_structure(scope: Scope, report: Report, *, sure: bool, lost: frozenset[str]) -> None:
    """`sure` is false if steps or edges of the graph could not be read: nothing is said about what is missing then.
    `lost` are the steps that could not be read, of whose kind nothing is known."""
    graph = scope.graph
    if not graph.steps:
        if sure:
            report.say("E004", "the graph has no steps; it needs at least a Finish", ("steps",))
        return
    _check_names(scope, report)
    _check_ends(scope, report)
    _check_labels(scope, report, lost)
    _check_choices(scope, report)
    _check_priorities(scope, report)
    _check_repeats(scope, report)
    if not sure:
        return
    cycle = scope.order.cycle
    if cycle is not None:
        report.say("E207", f"edges lead in a circle: {' → '.join(cycle)}; use a While step", ("executionPlan",))
    if _has_entry(scope, report):
        _check_reachable(scope, report)
    for id in graph.steps:
        if id not in lost:
            _check_way_on(id, scope, report)
        if cycle is None:
            _check_merge(id, scope, report)


def _check_names(scope: Scope, report: Report) -> None:
    first: dict[str, str] = {}
    for id, step in scope.graph.steps.items():
        if step.name is None:
            continue
        if step.name in first:
            says = f"step {first[step.name]!r} has the name {step.name!r} too"
            report.say("E060", says, ("steps", id, "name"), step=id)
        first.setdefault(step.name, id)


def _check_ends(scope: Scope, report: Report) -> None:
    steps = scope.graph.steps
    for index, edge in enumerate(scope.graph.execution_plan):
        for field, id in (("fromStep", edge.from_step), ("toStep", edge.to_step)):
            if id not in steps:
                says = f"the edge {_shown(edge)} names a step that does not exist: {id!r}"
                known = edge.from_step if edge.from_step in steps else None
                report.say("E014", says, ("executionPlan", index, field), step=known, suggestion=nearest(id, steps))


def _check_labels(scope: Scope, report: Report, lost: frozenset[str]) -> None:
    for index, edge in enumerate(scope.graph.execution_plan):
        step = scope.graph.steps.get(edge.from_step)
        if step is None or edge.from_step in lost:
            continue
        place = ("executionPlan", index, "label")
        if isinstance(step, FinishStep | ErrorStep):
            says = f"nothing comes after a {step.step_type}: the edge {_shown(edge)} is never taken"
            report.say("E206", says, ("executionPlan", index), step=edge.from_step)
        elif edge.label == ON_ERROR:
            if not isinstance(step, MAY_FAIL):
                kinds = ", ".join(kind.model_fields["step_type"].default for kind in MAY_FAIL)
                says = f"an `onError` edge cannot leave a {step.step_type}, only {kinds}"
                report.say("E206", says, place, step=edge.from_step)
        elif isinstance(step, ConditionalStep):
            _check_branch(edge, index, report)
        elif edge.label not in labels_of(step):
            _say_label(edge, index, step, report)


def _say_label(edge: Edge, index: int, step: Step, report: Report) -> None:
    allowed = [label for label in labels_of(step) if label is not None]
    known = f"it has {', '.join(map(repr, allowed))}" if allowed else "its normal way on has no label"
    written = f"an edge labelled {edge.label!r}" if edge.label else "an edge without a label"
    says = f"a {step.step_type} never leaves by {written}: {known}"
    near = nearest(edge.label or "", [*allowed, ON_ERROR] if isinstance(step, MAY_FAIL) else allowed)
    report.say("E206", says, ("executionPlan", index, "label"), step=edge.from_step, suggestion=near)


def _check_branch(edge: Edge, index: int, report: Report) -> None:
    if edge.label not in BRANCHES:
        says = f"the edge {_shown(edge)} of a Conditional needs the label 'true' or 'false'"
        suggestion = nearest(edge.label or "", BRANCHES)
        report.say("E072", says, ("executionPlan", index, "label"), step=edge.from_step, suggestion=suggestion)
    for field, given in (("condition", edge.condition), ("priority", edge.priority)):
        if given is not None:
            says = f"a Conditional decides by its own condition; the edge {_shown(edge)} has a {field}"
            report.say("E072", says, ("executionPlan", index, field), step=edge.from_step)


def _alike(scope: Scope) -> dict[tuple[str, str | None], list[tuple[int, Edge]]]:
    """The edges of the plan by the step and the label that they leave by, but for those of a Conditional with
    conditions, which are wrong already."""
    found: dict[tuple[str, str | None], list[tuple[int, Edge]]] = defaultdict(list)
    for index, edge in enumerate(scope.graph.execution_plan):
        found[edge.from_step, edge.label].append((index, edge))
    return found


def _check_choices(scope: Scope, report: Report) -> None:
    for (id, label), edges in _alike(scope).items():
        chosen = [(index, edge) for index, edge in edges if edge.condition is not None]
        targets = {edge.to_step: index for index, edge in edges if edge.condition is None}
        if len(targets) > 1 and (label is not None or chosen):
            way = "by its normal way" if label is None else f"by {label!r}"
            says = f"{id!r} goes on {way} to {_listed(targets)}: only one of these edges may be without a condition"
            report.say("E071", says, ("executionPlan", list(targets.values())[1]), step=id)
        first: dict[int, str] = {}
        for index, edge in chosen:
            priority = edge.priority or 0
            if priority in first and first[priority] != edge.to_step:
                says = (
                    f"the edges from {id!r} to {first[priority]!r} and {edge.to_step!r} both have priority {priority}"
                )
                report.say("E070", says, ("executionPlan", index, "priority"), step=id)
            first.setdefault(priority, edge.to_step)


def _check_priorities(scope: Scope, report: Report) -> None:
    for index, edge in enumerate(scope.graph.execution_plan):
        step = scope.graph.steps.get(edge.from_step)
        if edge.priority is not None and edge.condition is None and not isinstance(step, ConditionalStep):
            says = f"the edge {_shown(edge)} has no condition, so its priority has no effect: it is tried last"
            report.say("W200", says, ("executionPlan", index, "priority"), step=edge.from_step if step else None)


def _check_repeats(scope: Scope, report: Report) -> None:
    seen: list[Edge] = []
    counts = Counter((edge.from_step, edge.to_step) for edge in scope.graph.execution_plan)
    for index, edge in enumerate(scope.graph.execution_plan):
        if counts[edge.from_step, edge.to_step] > 1:
            if edge in seen:
                report.say(
                    "W040", f"the edge {_shown(edge)} is there twice", ("executionPlan", index), step=edge.from_step
                )
            seen.append(edge)


def _has_entry(scope: Scope, report: Report) -> bool:
    entry, steps = scope.graph.entry_point, scope.graph.steps
    if entry in steps:
        return True
    if entry:
        says = f"the entry point {entry!r} is no step"
        report.say("E001", says, ("entryPoint",), suggestion=nearest(entry, steps))
    else:
        free = [id for id in steps if not scope.order.into(id)]
        says = (
            f"no `entryPoint`, and {_listed(free)} have no incoming edge"
            if free
            else "no `entryPoint`, and every step has an incoming edge"
        )
        report.say("E001", says, ("entryPoint",))
    return False


def _check_reachable(scope: Scope, report: Report) -> None:
    for id, step in scope.graph.steps.items():
        if id in scope.order.reachable:
            continue
        if isinstance(step, FinishStep):
            says = f"no way leads from {scope.graph.entry_point!r} to the Finish {id!r}; an edge to it is missing"
            report.say("E003", says, ("steps", id), step=id)
        else:
            says = f"no way leads from {scope.graph.entry_point!r} to {id!r}; add an edge to it, or take it out"
            report.say("E002", says, ("steps", id), step=id)


def _check_way_on(id: str, scope: Scope, report: Report) -> None:
    missing, edges = scope.order.open_labels(id), scope.order.normal(id)
    if not missing:
        return
    if not edges:
        says = "nothing follows the step, so the graph ends here, with null"
    elif missing == (None,):
        says = "if none of its edges' conditions holds, the graph ends here, with null"
    else:
        says = f"no edge has the label {_listed(label for label in missing if label)}: there the graph ends, with null"
    report.say("W003", f"{says}; lead on to a Finish", ("steps", id), step=id)


def _check_merge(id: str, scope: Scope, report: Report) -> None:
    """Every way of each parallel branch has to come to the one step where all meet, unless it fails."""
    order = scope.order
    targets = order.fan_out(id)
    if not targets or order.merge(id) is not None or id in order.fails_only:
        return
    ends = [end for end in order.order if order.ends(end) and any(end in order.reached_from(t) for t in targets)]
    says = (
        f"the parallel branches {_listed(targets)} of {id!r} do not come together: they end at {_listed(ends)}. "
        "Lead all of them to one step, or choose between them by labels or conditions"
    )
    report.say("E073", says, ("steps", id), step=id)


def _shown(edge: Edge) -> str:
    return f"{edge.from_step} → {edge.to_step}" + (f" ({edge.label})" if edge.label else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
