"""`runtara dsl register`: the platform keeps JSON workflows, in versions, and workers host them without their files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from runtara.protocol.configuration import RegisteredDefinition
from runtara.protocol.definitions import KIND
from runtara.sdk.client import Client

from . import exits, output
from .dsl import print_problems, read_text, verdict_json, workflow_id
from .instances import client_of
from .options import AsJson, Tenant

if TYPE_CHECKING:
    from runtara.dsl.model import Graph
    from runtara.dsl.problems import Problem


class _Read(msgspec.Struct, frozen=True):
    """A file, and the document in it; None with problems that say why."""

    file: Path
    text: str
    document: object
    problems: "tuple[Problem, ...]"

    @property
    def id(self) -> str:
        return workflow_id(self.file)


def register(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSON workflows.", dir_okay=False, exists=True)],
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Let the platform keep JSON workflows. They are started in their last version; what runs keeps its own.

    A workflow is called as its file is. What one embeds must be among FILEs, or known to the platform. `runtara worker
    --registered` hosts all of them, and so does `runtara dev`.
    """

    async def go() -> None:
        read = [_read(file) for file in files]
        async with client_of(tenant) as client:
            children = await _children(client, read)
            found = [(one, (*one.problems, *_problems(one, children))) for one in read]
            for one, problems in found:
                if any(problem.severity == "error" for problem in problems):
                    _print(one, problems, as_json=as_json)
            if any(problem.severity == "error" for _, problems in found for problem in problems):
                raise typer.Exit(exits.FAILED)  # nothing is registered
            for one, problems in found:
                _say(await _register(client, one, children), len(problems), as_json=as_json)

    exits.run(go(), as_json=as_json)


def _read(file: Path) -> _Read:
    from runtara.dsl.files import parse_text

    text = read_text(file).removeprefix("\ufeff")
    document, problems = parse_text(text)
    return _Read(file, text, document, problems)


async def _children(client: Client, read: list[_Read]) -> Mapping[str, object]:
    """What the workflows may embed: documents by id, or None for one of the platform's that is not of JSON.

    Raises `DefinitionNotFound` for a version that is embedded, and does not exist.
    """
    views = await client.workflows()
    children: dict[str, object] = dict.fromkeys(view.id for view in views)
    of_json = {view.id for view in views if view.kind == KIND}
    given = {one.id: one.document for one in read}
    for id, version in sorted({child for one in read for child in _embedded(one)}, key=str):
        if id in of_json and (id not in given or version is not None):
            children[id] = msgspec.json.decode((await client.definitions.get(id, version=version)).document)
    return children | given


def _embedded(read: _Read) -> Iterator[tuple[str, int | None]]:
    from runtara.dsl.parse import parse

    graph = parse(read.document, id=read.id).graph
    return iter(()) if graph is None else _in_graph(graph)


def _in_graph(graph: "Graph") -> Iterator[tuple[str, int | None]]:
    """The workflows that it embeds, and in which version; None is the last."""
    from runtara.dsl.model import EmbedWorkflowStep
    from runtara.dsl.walk import subgraphs

    for step in graph.steps.values():
        if isinstance(step, EmbedWorkflowStep):
            version = step.child_version
            yield step.child_workflow_id, version if isinstance(version, int) else None
        for inner, _ in subgraphs(step):
            yield from _in_graph(inner)


def _problems(read: _Read, children: Mapping[str, object]) -> "tuple[Problem, ...]":
    from runtara.agents.registry import registry
    from runtara.dsl.validate import validate

    if read.document is None and read.problems:
        return ()
    return validate(read.document, id=read.id, agents=registry(), children=children, children_complete=True)


async def _register(client: Client, read: _Read, children: Mapping[str, object]) -> RegisteredDefinition:
    from runtara.dsl.load import load_workflow

    workflow = load_workflow(read.document, id=read.id, children=children)
    return await client.definitions.register(workflow.registration(code_version=""), read.text.encode())


def _print(read: _Read, problems: "tuple[Problem, ...]", *, as_json: bool) -> None:
    if as_json:
        output.print_json(verdict_json(read.file, problems))
    else:
        print_problems(read.file, problems)


def _say(done: RegisteredDefinition, warnings: int, *, as_json: bool) -> None:
    view = done.view
    if as_json:
        output.print_json(
            {
                "workflow": view.workflow, "version": view.version, "hash": view.hash, "created": done.created,
                "warnings": warnings, "registered_at": output.rfc3339(view.registered_at),
            }
        )  # fmt: skip
        return
    notes = [] if done.created else ["unchanged"]
    notes += [f"{output.counted(warnings, 'warning')}, see `runtara dsl validate`"] if warnings else []
    said = f"  ({'; '.join(notes)})" if notes else ""
    output.console().print(f"{view.workflow}@{view.version}{said}")
