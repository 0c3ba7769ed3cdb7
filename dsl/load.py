"""From a JSON document to a `Workflow` that a worker can host: validate, compile, execute.

Invariants: a document with an error is never run; a traceback shows the compiled source; the same document gives the
same code, wherever its file lies.
"""

import hashlib
import importlib.util
import linecache
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtara.agents.registry import registry
from runtara.protocol.errors import BadInput
from runtara.protocol.ids import check_id

from .compiler import compile_workflow, embedded
from .files import SUFFIX, Siblings, parse_text
from .model import Graph
from .parse import parse
from .problems import Problem, errors
from .runtime import JsonWorkflow
from .validate import validate

MODULES: Final = "runtara_json_workflows"
MAX_FILE_BYTES: Final = 16_777_216  # a document that is larger holds data, which belong into its input


class InvalidDocument(BadInput):
    """A document has errors. `problems` are all of them, with the warnings."""

    template = "workflow {workflow} has {count} error(s): {reason}"
    workflow: str
    count: int
    reason: str
    problems: tuple[Problem, ...]

    def __init__(self, workflow: str, problems: tuple[Problem, ...]) -> None:
        found = errors(problems)
        first = found[0]
        where = f" (step {first.step!r})" if first.step else ""
        more = f"; and {len(found) - 1} more: `runtara dsl validate` has all" if len(found) > 1 else ""
        super().__init__(workflow=workflow, count=len(found), reason=f"{first.code} {first.message}{where}{more}")
        self.problems = problems

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.attributes["workflow"], self.problems)


def graph_of(document: object, *, id: str, children: Mapping[str, object] | None = None) -> Graph:
    """The checked graph; `children` are as for `validate`. Raises `InvalidDocument`, `InvalidId`."""
    check_id(id, "workflow")
    problems = validate(document, id=id, agents=registry(), children=children, children_complete=False)
    graph = parse(document, id=id).graph
    if errors(problems) or graph is None:
        raise InvalidDocument(id, problems)
    return graph


def load_workflow(document: object, *, id: str, children: Mapping[str, object] | None = None) -> JsonWorkflow:
    """The workflow of a document. Raises as `graph_of`."""
    return _executed(compile_workflow(graph_of(document, id=id, children=children), id=id), id)


def load_file(path: Path) -> JsonWorkflow:
    """The workflow of a file; its id is the file's stem. Raises as `graph_of`, and `BadInput` if it cannot be read."""
    return _executed(compile_workflow(graph_of_file(path), id=path.stem), path.stem)


def graph_of_file(path: Path) -> Graph:
    """The checked graph of a file. Raises as `load_file`."""
    return graph_of_text(_text(path), id=path.stem, folder=path.parent)


def graph_of_text(text: str, *, id: str, folder: Path) -> Graph:
    """The checked graph of a JSON text; the workflows that it embeds are looked for in `folder`. Raises as
    `graph_of`."""
    document, problems = parse_text(text)
    if problems:
        raise InvalidDocument(id, problems)
    return graph_of(document, id=id, children=Siblings(folder))


def files_of(path: Path) -> list[Path]:
    """A workflow's file, and those of the workflows that it embeds, as far as they lie beside it. Raises as
    `load_file`."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = None
            beside = (file.with_name(f"{id}{SUFFIX}") for id in sorted(embedded(graph_of_file(file))))
            waiting += [other for other in beside if other.is_file()]
    return list(found)


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadInput(reason=f"{path.name} has {size:,} bytes; a workflow has at most {MAX_FILE_BYTES:,}")
        return path.read_text("utf-8")
    except OSError as exc:
        raise BadInput(reason=f"{path.name} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise BadInput(reason=f"{path.name} is not UTF-8: {exc.reason} at byte {exc.start}") from exc


def unload(workflow: JsonWorkflow) -> None:
    """Let go of the module that `load_workflow` made; whoever runs the workflow still has it."""
    if workflow.__module__.startswith(f"{MODULES}."):
        sys.modules.pop(workflow.__module__, None)


def _executed(source: str, id: str) -> JsonWorkflow:
    """Run the source as a module of its own, which stays known: annotations and tracebacks look there."""
    version = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"{MODULES}.{id.replace('-', '_')}_{version}"
    module = sys.modules.get(name)
    if module is None:
        file = f"<{id}.json, compiled, {version[:8]}>"
        spec = importlib.util.spec_from_loader(name, loader=None, origin=file)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), vars(module))
        sys.modules[name] = module
    return next(found for found in vars(module).values() if isinstance(found, JsonWorkflow))
