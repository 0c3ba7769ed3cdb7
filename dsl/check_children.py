"""Checks of EmbedWorkflow steps: the child, what it is given, and circles of children."""

from collections.abc import Iterator

from runtara.protocol.ids import is_id

from .model import EmbedWorkflowStep, Graph
from .places import Place
from .report import Report
from .scope import Scope
from .shapes import destinations
from .walk import subgraphs
from .world import World

_WHOLE_INPUT = frozenset({"data", "variables"})


def check_child(id: str, step: EmbedWorkflowStep, world: World, report: Report) -> None:
    at: Place = ("steps", id)
    child_id = step.child_workflow_id
    if not is_id(child_id):
        says = f"{child_id!r} cannot be a workflow's id: use 1 to 128 letters, digits, '_' or '-'"
        report.say("E203", says, (*at, "childWorkflowId"), step=id)
        return
    if not world.exists(child_id):
        if world.complete:
            says = f"there is no workflow {child_id!r}; register it first"
            report.say("E124", says, (*at, "childWorkflowId"), step=id)
        else:
            says = f"the workflow {child_id!r} is not here, so what it is given is not checked"
            report.say("W082", says, (*at, "childWorkflowId"), step=id)
        return
    child = world.child(step)
    if child is None:
        return
    given = {keys[0] for keys in destinations(step.input_mapping).values()}
    if given and given <= _WHOLE_INPUT:
        return  # the child's whole input: `data` as one value cannot be looked into
    if given and not child.input_schema:
        says = f"{child_id!r} declares no `inputSchema`, so it is not known to read {', '.join(sorted(given))}"
        report.say("E054", says, (*at, "inputMapping"), step=id)
    missing = [
        name
        for name, field in child.input_schema.items()
        if field.required and not field.has_default and name not in given
    ]
    if missing:
        says = f"{child_id!r} requires {', '.join(map(repr, missing))}, which the mapping leaves out"
        report.say("E055", says, (*at, "inputMapping"), step=id)


def check_embedding(root: Scope, workflow: str, report: Report) -> None:
    """Of the document as a whole: ids that are there twice, and circles."""
    first: dict[str, str] = {}
    for id, step, at, path in _embedded(root.graph, (), None):
        if id in first:
            says = f"the EmbedWorkflow step {first[id]!r} has the id {id!r} too; children are told apart by it"
            report.say("E125", says, at, step=path)
        first.setdefault(id, path)
        circle = _circle(step.child_workflow_id, workflow, root.world)
        if circle is not None:
            says = f"workflows embed each other in a circle: {' → '.join((workflow, *circle))}"
            report.say("E056", says, (*at, "childWorkflowId"), step=path)


def _embedded(graph: Graph, at: Place, step: str | None) -> Iterator[tuple[str, EmbedWorkflowStep, Place, str]]:
    """All EmbedWorkflow steps of a graph and its subgraphs."""
    for id, found in graph.steps.items():
        place = (*at, "steps", id)
        path = id if step is None else f"{step}/{id}"
        if isinstance(found, EmbedWorkflowStep):
            yield id, found, place, path
        for inner, field in subgraphs(found):
            yield from _embedded(inner, (*place, *field), path)


def _circle(child: str, workflow: str, world: World) -> tuple[str, ...] | None:
    """The way from a child back to the workflow, if there is one."""
    waiting: list[tuple[str, ...]] = [(child,)]
    seen: set[str] = set()
    while waiting:
        way = waiting.pop()
        if way[-1] == workflow:
            return way
        graph = None if way[-1] in seen else world.child(way[-1])
        seen.add(way[-1])
        if graph is not None:
            waiting += [(*way, step.child_workflow_id) for _, step, _, _ in _embedded(graph, (), None)]
    return None
