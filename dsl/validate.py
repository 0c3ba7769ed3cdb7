"""Whether a document is a legal workflow: every problem at once, each with code, step, place and suggestion.

Invariant: what has no error compiles, and what it reads is there. Checks look at one thing each and never stop each
other; about what could not be read, nothing more is said.
"""

from collections.abc import Mapping
from typing import Final

from runtara.agents.registry import Registry
from runtara.protocol.ids import is_id
from runtara.protocol.limits import MAX_KEY_LENGTH

from .check_agents import check_agent
from .check_children import check_child, check_embedding
from .check_references import ReferenceCheck
from .check_schemas import check_declarations, check_step_schemas
from .check_steps import check_condition, check_step
from .check_structure import check_structure
from .model import AgentStep, EmbedWorkflowStep
from .parse import Reading, read
from .problems import Problem
from .report import Report
from .scope import Scope, root_scope
from .walk import Use, subgraphs
from .world import World

_PER_LEVEL: Final = 13  # characters of a key: an index with what separates it
_ADDED: Final = 64  # the attempt, what a wait or a child adds


def validate(
    document: object,
    *,
    id: str,
    agents: Registry | None = None,
    children: Mapping[str, object] | None = None,
    children_complete: bool = True,
) -> tuple[Problem, ...]:
    """`id` is the workflow's. Without `agents`, Agent steps are not checked against their capabilities.

    `children` are documents by workflow id (None: a workflow that exists, and is not of JSON). A child that is not in
    it is an error if `children_complete`, else a warning; without `children` it is a warning.
    """
    reading = read(document, id=id)
    if reading.graph is None:
        return tuple(reading.problems)
    world = World(agents=agents, children=children, complete=children_complete)
    root = root_scope(reading.graph, world, at=reading.at)
    report = Report(document, root, list(reading.problems))
    if not is_id(id):
        report.say("E203", f"{id!r} cannot be a workflow's id: use 1 to 128 letters, digits, '_' or '-'", ())
    read_data = _check(root, report, reading)
    if read_data and not root.graph.input_schema:
        says = "there is no `inputSchema`, so what is read of `data` is not checked, neither here nor at a start"
        report.say("W081", says, ("inputSchema",))
    check_embedding(root, id, report)
    return tuple(dict.fromkeys(report.problems))


def _check(scope: Scope, report: Report, reading: Reading) -> bool:
    """A graph and those within it; whether anything reads the workflow's `data`."""
    sure = scope.at not in reading.unsure
    lost = frozenset(id for id in scope.graph.steps if (*scope.at, "steps", id) in reading.lost)
    check_structure(scope, report, sure=sure, lost=lost)
    check_declarations(scope.graph, report)
    references = ReferenceCheck(scope, report, sure=sure)
    for index, edge in enumerate(scope.graph.execution_plan):
        if edge.condition is not None:
            check_condition(Use(edge.condition, ("executionPlan", index, "condition")), report, step=edge.from_step)
        references.edge(index, edge)
    reads_data = False
    for id, step in scope.graph.steps.items():
        if _key_length(scope.path_of(id)) > MAX_KEY_LENGTH:
            says = "the step's id and those of the steps around it are too long together to be a key; shorten some"
            report.say("E203", says, ("steps", id), step=id)
        references.step(id, step)
        if (*scope.at, "steps", id) not in reading.broken:
            check_step(id, step, report)
            check_step_schemas(id, step, report)
            if isinstance(step, AgentStep):
                check_agent(id, step, scope.world, report)
            if isinstance(step, EmbedWorkflowStep):
                check_child(id, step, scope.world, report)
        for _, (field,) in subgraphs(step):
            child = scope.child(id, str(field))
            inner = _check(child, report.of(child), reading)
            reads_data |= inner and child.data is scope.data
    return reads_data or references.reads_data


def _key_length(path: str) -> int:
    """Of the longest key that may be recorded for a step, with room for the index of each round and what is added."""
    return len(path) + path.count("~") + _PER_LEVEL * path.count("/") + _ADDED
