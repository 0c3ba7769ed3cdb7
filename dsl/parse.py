"""A JSON document as a graph, or every problem of its shape at once.

What has a wrong shape is taken out and reported, and the rest is read on, so that the validator can find what else is
wrong in the same run: `read` gives what could be read, and says what of it is not to be relied upon. A step of which
nothing can be made is replaced by a Log of its id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from .model import Document, Graph
from .model_base import Model
from .model_steps import MAX_ID, STEP_TYPE_ALIASES, STEP_TYPES, BaseStep, LogStep
from .parse_errors import wrongs
from .places import SPELLINGS, Place, locate, pointer, without
from .problems import Problem, errors, problem
from .suggest import nearest

MAX_NESTING: Final = 128  # of objects and arrays: what the platform's records may have too
_ROUNDS: Final = 8  # of taking out what is wrong; then the whole is given up
ENVELOPE: Final = "executionGraph"
NESTED: Final = ("subgraph", "onWait")
"""Fields of steps that hold a graph."""

_OPTIONS_OF_THE_WHOLE: Final = (
    "inputSchema", "outputSchema", "rateLimitBudgetMs", "executionTimeoutSeconds", "trackEvents", "durable",
)  # fmt: skip
_WITHOUT_EFFECT: Final[Mapping[str, Mapping[str, str]]] = {
    "": {"memoryTier": "limits belong to the image or the runner (`runtara image register --memory`)"},
    "Agent": {"compensation": "nothing is undone by it; lead an `onError` edge to steps that undo"},
    "WaitForSignal": {"pollIntervalMs": "a signal arrives without polling"},
}
"""By step type (empty: the envelope and graphs), fields that other engines read, and what to do instead."""

_M = TypeVar("_M", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """`graph` is None if a problem is an error."""

    graph: Graph | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What could be read of `document`. `at` is the graph's place in it, `broken` are those of steps of which something
    was taken out, `lost` those of which nothing is left, `unsure` those of graphs whose edges are not all there."""

    document: object
    graph: Graph | None
    at: Place
    problems: list[Problem]
    broken: set[Place]
    lost: set[Place]
    unsure: set[Place]


def parse(document: object, *, id: str) -> Parsed:
    """`id` is the workflow's. Checks the shape alone: `validate` says whether the rest holds."""
    reading = read(document, id=id)
    problems = tuple(reading.problems)
    return Parsed(graph=None if errors(problems) else reading.graph, problems=problems)


def read(document: object, *, id: str) -> Reading:
    """As much of the document as has the right shape."""
    reader = _Reader(document)
    if not isinstance(document, dict):
        reader.say("E200", f"workflow {id} is no JSON object", ())
        return reader.reading(None)
    if _depth_exceeds(document, MAX_NESTING):
        reader.say("E200", f"workflow {id} is nested more than {MAX_NESTING} levels deep", ())
        return reader.reading(None)
    if ENVELOPE not in document:
        return reader.reading(reader.graph(document, at=(), step=None))
    return reader.reading(reader.document(document), at=(ENVELOPE,))


class _Reader:
    """Collects what is wrong on the way."""

    def __init__(self, document: object) -> None:
        self._document = document
        self._problems: list[Problem] = []
        self._broken: set[Place] = set()
        self._lost: set[Place] = set()
        self._unsure: set[Place] = set()

    def reading(self, graph: Graph | None, *, at: Place = ()) -> Reading:
        return Reading(
            document=self._document,
            graph=graph,
            at=at,
            problems=self._problems,
            broken=self._broken,
            lost=self._lost,
            unsure=self._unsure,
        )

    def say(
        self, code: str, message: str, at: Place, *, step: str | None = None, suggestion: str | None = None
    ) -> None:
        place = locate(self._document, at, missing=True)
        self._problems.append(problem(code, message, step=step, pointer=pointer(place), suggestion=suggestion))

    def document(self, raw: dict[str, object]) -> Graph | None:
        """Of the envelope, the options that the graph does not set itself."""
        rest = self._known(raw, "", at=(), step=None)
        graph = self.graph(rest.pop(ENVELOPE), at=(ENVELOPE,), step=None)
        envelope, _ = self._model(Document, {**rest, ENVELOPE: Graph(steps={})}, at=(), step=None)
        if graph is None or envelope is None:
            return graph
        given = envelope.model_dump(include=envelope.model_fields_set - {"execution_graph"}, by_alias=False)
        return graph.model_copy(update={k: v for k, v in given.items() if k not in graph.model_fields_set})

    def graph(self, raw: object, *, at: Place, step: str | None) -> Graph | None:
        """`step` is the one that it is the subgraph of."""
        if not isinstance(raw, dict):
            self.say("E200", "a graph is a JSON object with `steps`", at, step=step)
            return None
        rest = self._known(raw, "", at=at, step=step)
        if step is not None:
            self._warn_of_options(rest, at=at, step=step)
        steps = self._steps(rest.pop("steps", None), at=at, step=step)
        graph, wrong = self._model(Graph, {**rest, "steps": {}}, at=at, step=step)
        if any(place[:1] == ("executionPlan",) for place in wrong):
            self._unsure.add(at)
        if graph is None:
            return None
        entry = graph.entry_point or _only_entry(steps, graph)
        return graph.model_copy(update={"steps": steps, "entry_point": entry})

    def _steps(self, raw: object, *, at: Place, step: str | None) -> dict[str, BaseStep]:
        if isinstance(raw, dict):
            return {str(id): self._step(str(id), inner, at=(*at, "steps", id), outer=step) for id, inner in raw.items()}
        code, says = (
            ("E202", "'steps' is missing") if raw is None else ("E203", "'steps' should be an object: id → step")
        )
        self.say(code, says, (*at, "steps"), step=step)
        self._unsure.add(at)
        return {}

    def _step(self, id: str, raw: object, *, at: Place, outer: str | None) -> BaseStep:
        name = id if outer is None else f"{outer}/{id}"
        before = len(errors(self._problems))
        step = self._readable_step(id, raw, at=at, name=name)
        if step is None or len(errors(self._problems)) > before:
            self._broken.add(at)
        if step is None:
            self._lost.add(at)
            return LogStep.model_construct(id=id, message="")
        return step

    def _readable_step(self, id: str, raw: object, *, at: Place, name: str) -> BaseStep | None:
        if not isinstance(raw, dict):
            self.say("E200", "a step is a JSON object", at, step=name)
            return None
        if not id or len(id) > MAX_ID or not id.isprintable() or id.startswith("__"):
            self.say(
                "E203", f"a step's id has 1 to {MAX_ID} printable characters and does not begin with __", at, step=name
            )
        if raw.get("id", id) != id:
            self.say("E205", f"the step's id is {raw['id']!r}, but it stands under {id!r}", (*at, "id"), step=name)
        written = raw.get("stepType")
        kind = STEP_TYPE_ALIASES.get(written, written) if isinstance(written, str) else None
        if kind not in STEP_TYPES:
            self._say_unknown_type(written, at=at, name=name)
            return None
        rest = self._known(raw, kind, at=at, step=name)
        for nested in NESTED:
            if isinstance(rest.get(nested), dict):
                rest[nested] = self.graph(rest[nested], at=(*at, nested), step=name)
        found, _ = self._model(STEP_TYPES[kind], {**rest, "stepType": kind, "id": id[:MAX_ID] or "?"}, at=at, step=name)
        return found

    def _say_unknown_type(self, written: object, *, at: Place, name: str) -> None:
        if written is None:
            self.say("E202", "'stepType' is missing", (*at, "stepType"), step=name)
            return
        suggestion = nearest(str(written), STEP_TYPES)
        self.say("E204", f"there is no step type {written!r}", (*at, "stepType"), step=name, suggestion=suggestion)

    def _known(self, raw: dict[str, object], kind: str, *, at: Place, step: str | None) -> dict[str, object]:
        """A copy in the model's spelling, without what has no effect here."""
        found: dict[str, object] = {}
        for name, value in raw.items():
            instead = _WITHOUT_EFFECT.get(kind, {}).get(name)
            if instead is not None:
                self.say("W200", f"{name!r} has no effect here: {instead}", (*at, name), step=step)
                continue
            known = SPELLINGS.get(name, name)
            if known != name and known in raw:
                self.say(
                    "E201", f"{name!r} is another spelling of {known!r}, which is there too", (*at, name), step=step
                )
                continue
            found[known] = value
        return found

    def _warn_of_options(self, raw: dict[str, object], *, at: Place, step: str) -> None:
        for name in _OPTIONS_OF_THE_WHOLE:
            if raw.get(name) not in (None, {}):
                says = f"{name!r} of a subgraph has no effect; it belongs to the workflow or to the step around it"
                self.say("W200", says, (*at, name), step=step)

    def _model(
        self, cls: type[_M], raw: dict[str, object], *, at: Place, step: str | None
    ) -> tuple[_M | None, list[Place]]:
        """The record, and the places of what was wrong and is left out of it. None if too little is left."""
        wrong: list[Place] = []
        rest: object = raw
        for attempt in range(_ROUNDS):
            try:
                return cls.model_validate(rest), wrong
            except ValidationError as exc:
                found = list(wrongs(exc, cls, rest))
            if attempt == 0:  # what comes later follows from what was taken out
                for code, message, suggestion, place in found:
                    self.say(code, message, (*at, *place), step=step, suggestion=suggestion)
                wrong = [each.place for each in found]
            gone = [_removable(rest, each.place) for each in found]
            if () in gone:
                return None, wrong
            rest = without(rest, gone)
        return None, wrong


def _removable(raw: object, place: Place) -> Place:
    """The place itself, or where something is missing, what lacks it."""
    here = raw
    for part in place:
        if isinstance(here, dict) and part not in here:
            return place[:-1]
        here = here[part]  # type: ignore[index]
    return place


def _only_entry(steps: Mapping[str, BaseStep], graph: Graph) -> str:
    """The one step that no edge leads to; empty where there are several, or none."""
    entered = {edge.to_step for edge in graph.execution_plan}
    free = [id for id in steps if id not in entered]
    return free[0] if len(free) == 1 else ""


def _depth_exceeds(raw: object, limit: int) -> bool:
    level = [raw]
    for _ in range(limit + 1):
        level = [inner for part in level for inner in _inside(part)]
        if not level:
            return False
    return True


def _inside(raw: object) -> list[object]:
    found = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list) else ()
    return [inner for inner in found if isinstance(inner, dict | list)]
