"""Checks of what values read: paths, templates, and whether what they name is there by then."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jinja2 import TemplateError

from .model import ON_ERROR, Edge, Reference, Step, Template
from .paths import Path, PathError, parse_path
from .places import Place
from .report import Report
from .scope import ALIASES, BUILT_IN, ERROR, ROOTS, Scope
from .shapes import Found, NoField, NoWayOn, Shape, follow
from .suggest import nearest
from .template_paths import template_reads
from .walk import Sees, Use, leaves, uses

_SHOWN: Final = 8  # names in a message
_DECLARED: Final = frozenset({"data", "variables", "item", "workflow"})
"""Roots whose shapes authors declare; of others, it is no news that they are not known to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Who reads: a step, or with `after` an edge that leaves it, with `failed` one that leaves it by a failure."""

    id: str
    after: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _At:
    place: Place
    sees: Sees
    reader: _Reader


class ReferenceCheck:
    """Of one graph. `sure`: the graph could be read whole, so that the order of its steps is known."""

    def __init__(self, scope: Scope, report: Report, *, sure: bool) -> None:
        self._scope = scope
        self._report = report
        self._sure = sure and scope.order.cycle is None
        self.reads_data = False

    def step(self, id: str, step: Step) -> None:
        for use in uses(step):
            for leaf in leaves(use):
                self._leaf(leaf, ("steps", id, *leaf.place), _Reader(id=id))

    def edge(self, index: int, edge: Edge) -> None:
        if edge.condition is None or edge.from_step not in self._scope.graph.steps:
            return
        reader = _Reader(id=edge.from_step, after=True, failed=edge.label == ON_ERROR)
        for leaf in leaves(Use(edge.condition, ("executionPlan", index, "condition"))):
            self._leaf(leaf, leaf.place, reader)

    def _leaf(self, leaf: Use, place: Place, reader: _Reader) -> None:
        at = _At(place=(*place, "value"), sees=leaf.sees, reader=reader)
        match leaf.value:
            case Reference(value=text):
                try:
                    path = parse_path(text)
                except PathError as exc:
                    says = f"{text!r} is not a path: at character {exc.position}, {exc.reason}"
                    self._say("E011", says, at)
                else:
                    self._path(path, at)
            case Template(value=text):
                self._template(text, at)
            case _:
                pass

    def _template(self, text: str, at: _At) -> None:
        try:
            reads = template_reads(text)
        except TemplateError as exc:
            line = getattr(exc, "lineno", 1)
            self._say("E208", f"the template cannot be read, in line {line}: {exc.message}", at)
            return
        for path in reads.paths:
            self._path(path, at)
        if reads.dynamic:
            self._say("W052", "the template chooses at run time what it reads, so it is checked only in part", at)

    # one path

    def _path(self, path: Path, at: _At) -> None:
        root = ALIASES.get(path.root, path.root)
        self.reads_data |= root == "data"
        if root not in ROOTS:
            self._unknown_root(path, at)
        elif root == "error" or (root == "steps" and path.parts[:1] == (ERROR,)):
            if not at.reader.failed and not self._scope.sees_error(at.reader.id):
                says = f"{path} is only there where a failure leads: after an `onError` edge"
                self._say("E127", says, at)
            else:
                self._follow(path, at)
        elif root == "steps":
            self._step_path(path, at)
        elif self._scope.root(root, at.sees) is None:
            where = "a Split's body or a Filter's condition" if root == "item" else "a While's body or condition"
            self._say("E127", f"{path}: there is no {root!r} here, only in {where}", at)
        else:
            self._follow(path, at)

    def _unknown_root(self, path: Path, at: _At) -> None:
        suggestion = nearest(path.root, ROOTS)
        if path.root == ERROR:
            suggestion = f"steps.{ERROR}"
        elif path.root in BUILT_IN:
            suggestion = f"variables.{path.root}"
        elif path.root in self._scope.graph.steps:
            suggestion = f"steps.{path.root}.outputs"
        elif path.root in self._scope.variables:
            suggestion = f"variables.{path.root}"
        says = f"{path} begins with {path.root!r}; a path begins with {', '.join(ROOTS)}"
        self._say("E126", says, at, suggestion=suggestion)

    def _step_path(self, path: Path, at: _At) -> None:
        id = path.parts[0] if path.parts else None
        if not isinstance(id, str):
            self._say("E011", f"{path} names no step; write steps.<id>.outputs", at)
            return
        owner = self._scope.owner(id)
        if owner is None:
            says = f"{path} names the step {id!r}, which is not in this graph"
            if self._scope.step is not None:
                says += "; a subgraph sees its own steps, and of those around it what `config.variables` passes on"
            self._say("E010", says, at, suggestion=nearest(id, self._scope.graph.steps))
            return
        self._check_ran(id, owner, path, at)
        self._follow(path, at)

    def _check_ran(self, id: str, owner: Scope, path: Path, at: _At) -> None:
        reader, scope = at.reader.id, self._scope
        while scope is not owner and scope.around is not None:  # a graph before a wait: the step that waits reads
            scope, reader = scope.around
        if owner is self._scope and id == reader:
            if at.reader.failed:
                self._say("E012", f"{path}: {id!r} has failed here, so it has no outputs; read steps.__error", at)
            elif not at.reader.after:
                self._say("W050", f"{path}: the step reads its own outputs, which are null until it has finished", at)
            return
        order = owner.order
        if not self._sure or reader not in order.reachable or order.completed_before(id, reader):
            return
        if order.runs_before(id, reader):
            says = f"{path}: where {reader!r} runs, {id!r} has failed and has no outputs; read steps.__error"
        elif order.runs_before(reader, id):
            says = f"{path}: {id!r} runs after {reader!r}"
        else:
            says = f"{path}: {id!r} is on another branch than {reader!r}, so it cannot be relied upon to have run"
        self._say("E012", says, at)

    # along the shapes

    def _follow(self, path: Path, at: _At) -> None:
        start = self._scope.start(path, at.sees)
        if start is None:
            return
        shape, parts = start
        skipped = len(path.parts) - len(parts)
        match follow(shape, parts):
            case Found(sure=False) if ALIASES.get(path.root, path.root) in _DECLARED:
                self._say("W051", f"{path} goes deeper than what is declared, so it is checked only in part", at)
            case Found():
                pass
            case NoField(depth=depth, shape=known):
                self._no_field(path, skipped + depth, known, at)
            case NoWayOn(depth=depth, shape=known):
                before = Path(root=path.root, parts=path.parts[: skipped + depth])
                part = path.parts[skipped + depth]
                hint = f"; write {before}[0]{_rest(path, skipped + depth)}" if known.kind == "array" else ""
                says = f"{path}: {before} is {_article(known.kind)}, which has no {part!r}{hint}"
                self._say("E059", says, at)

    def _no_field(self, path: Path, depth: int, known: Shape, at: _At) -> None:
        name = str(path.parts[depth])
        before = Path(root=path.root, parts=path.parts[:depth])
        suggestion = nearest(name, known.fields)
        if before.root == "variables" and depth == 0:
            self._no_variable(name, path, at, suggestion)
            return
        has = f"{before} has {_some(known.fields)}" if known.fields else f"{before} has no fields"
        if before == Path(root="data"):
            self._say("E051", f"{path}: `inputSchema` declares no {name!r}; {has}", at, suggestion=suggestion)
            return
        if before.root == "steps" and depth == 1 and suggestion is None:
            suggestion = str(Path(root="steps", parts=(*path.parts[:1], "outputs", *path.parts[1:])))
        self._say("E058", f"{path}: there is no {name!r}; {has}", at, suggestion=suggestion)

    def _no_variable(self, name: str, path: Path, at: _At, suggestion: str | None) -> None:
        scope = self._scope
        if name in BUILT_IN:
            has = _some(scope.built_in)
            self._say("E013", f"{path}: the built-in variable {name!r} is not there here; there are {has}", at)
        elif name.startswith("_"):
            says = f"{path}: names with _ are built in, and there is no {name!r}"
            self._say("E013", says, at, suggestion=nearest(name, scope.built_in))
        else:
            how = "declare it in `variables`"
            if scope.step is not None:
                how = f"pass it on in `config.variables` of {scope.step!r}, or declare it in the subgraph's `variables`"
            self._say("E053", f"{path}: there is no variable {name!r}; {how}", at, suggestion=suggestion)

    def _say(self, code: str, message: str, at: _At, *, suggestion: str | None = None) -> None:
        self._report.say(code, message, at.place, step=at.reader.id, suggestion=suggestion)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (" …" if len(listed) > _SHOWN else "")


def _rest(path: Path, depth: int) -> str:
    return str(Path(root="", parts=path.parts[depth:]))


def _article(kind: str | None) -> str:
    return f"an {kind}" if kind and kind[0] in "aeiou" else f"a {kind}"
