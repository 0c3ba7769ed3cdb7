"""Made-up JSON workflows that are legal: every step type, nested subgraphs, diamonds, parallel branches, handlers.

`workflows()` gives documents that validate and that end by themselves: lists are short, loops count, waits time out,
and nothing waits for a person. Their agents are those of `shop_agent.py`, their children are `CHILDREN`, their input
fits `INPUT_SCHEMA`. They may fail, by an Error step or by an agent that refuses, but then always in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st

Json = dict[str, Any]
Tail = Json
"""An edge that leads nowhere yet."""

INPUT_SCHEMA: Final[Json] = {
    "name": {"type": "string", "required": True},
    "n": {"type": "integer", "default": 0},
    "nothing": {"type": "string", "nullable": True},
    "lines": {
        "type": "array",
        "required": True,
        "items": {"type": "object", "properties": {"kind": {"type": "string"}, "n": {"type": "integer"}}},
    },
}
CHILDREN: Final[dict[str, Json]] = {
    "child-echo": {
        "inputSchema": {"value": {"type": "string", "required": True}},
        "steps": {
            "nap": {"stepType": "Delay", "durationMs": 10},
            "end": {"stepType": "Finish", "inputMapping": {"echo": {"valueType": "reference", "value": "data.value"}}},
        },
        "executionPlan": [{"fromStep": "nap", "toStep": "end"}],
        "outputSchema": {"echo": {"type": "string"}},
    },
    "child-refuses": {
        "steps": {"no": {"stepType": "Error", "code": "NO", "message": "never", "category": "permanent"}},
    },
}
_IDS: Final = (
    "a",
    "a1",
    "a_1",
    "a-1",
    "A1",
    "a 1",
    "größe",
    "名前",
    "a.b",
    "x/y",
    "x~1y",
    "steps",
    "data",
    "return",
)
_DEPTH: Final = 2  # of subgraphs and branches within each other
_TEXT: Final = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn"]), max_size=6)
_SCALARS: Final = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), _TEXT)
_CONSTANTS: Final = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2)
)
_LINES: Final = st.lists(
    st.fixed_dictionaries({"kind": st.sampled_from(("x", "y", "")), "n": st.integers(-3, 3)}), max_size=3
)
inputs: Final = st.fixed_dictionaries(
    {"name": _TEXT, "lines": _LINES}, optional={"n": st.integers(-3, 3), "nothing": st.none()}
)
"""What the workflows may be started with."""


@st.composite
def workflows(draw: st.DrawFn, max_steps: int = 12) -> Json:
    """A document. `max_steps` counts those of subgraphs too, and is a little exceeded where a branch must end."""
    shared = _Shared(draw=draw, budget=draw(st.integers(1, max_steps)))
    graph = _Graph(shared, roots=["data.name", "data.n", "data.lines", "data", "variables.rate", "workflow.inputs"])
    document = graph.whole(depth=_DEPTH)
    document |= {"inputSchema": INPUT_SCHEMA, "variables": {"rate": {"type": "number", "value": 1.5}, "plain": [1]}}
    if draw(st.booleans()):
        document["trackEvents"] = True
    return {"executionGraph": document} if draw(st.booleans()) else document


@dataclass(slots=True, kw_only=True)
class _Shared:
    """Of all graphs of a document."""

    draw: st.DrawFn
    budget: int
    embedded: int = 0


@dataclass(slots=True)
class _Graph:
    shared: _Shared
    roots: list[str]
    avoid: frozenset[str] = frozenset()
    """Ids of the graph around whose steps are seen here; one's own of the same id would hide it."""
    steps: dict[str, Json] = field(default_factory=dict)
    edges: list[Json] = field(default_factory=list)

    def whole(self, *, depth: int) -> Json:
        """Draw the graph."""
        tails, seen = self._sequence([], list(self.roots), depth=depth, parallel=False)
        self._end(tails, seen)
        graph: Json = {"steps": self.steps, "executionPlan": self.edges}
        if self._draw(st.booleans()):
            graph["entryPoint"] = next(iter(self.steps))
        return graph

    def _draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.shared.draw(strategy)

    # sequences of blocks; each takes the edges that lead into it and gives those that lead out, and what is seen then

    def _sequence(
        self, tails: list[Tail], seen: list[str], *, depth: int, parallel: bool
    ) -> tuple[list[Tail], list[str]]:
        for _ in range(self._draw(st.integers(0 if depth < _DEPTH else 1, 3))):
            if self.shared.budget <= 0 or (self.steps and not tails):
                break
            block = self._draw(st.sampled_from(self._blocks(depth)))
            tails, seen = block(tails, seen, depth, parallel)
        return tails, seen

    def _blocks(self, depth: int) -> list[Callable[..., tuple[list[Tail], list[str]]]]:
        plain: list[Callable[..., tuple[list[Tail], list[str]]]] = [self._plain, self._plain, self._handled]
        return (
            plain
            if depth == 0
            else [*plain, self._branches, self._routes, self._by_edges, self._parallel, self._diamond]
        )

    def _plain(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        kinds = [self._agent, self._log, self._delay, self._filter, self._group, self._switch, self._embed]
        if depth > 0:
            kinds += [self._split, self._while] * 4  # as often as all others: they hold the others
        id = self._add(tails, self._draw(st.sampled_from(kinds))(seen, depth))
        return [{"fromStep": id}], self._seen(seen, id)

    def _handled(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        """A step that may fail, and what is done then."""
        kind = self._draw(st.sampled_from((self._refusing, self._refusing_child, self._wait, self._agent)))
        id = self._add(tails, kind(seen, depth))
        failed: list[Tail] = [{"fromStep": id, "label": "onError"}]
        if self._draw(st.booleans()):
            failed[0] |= {"condition": _is("steps.__error.category", "permanent"), "priority": 1}
        handling = [*seen, "steps.__error.code", "steps.__error", "error.message"]
        handled, after = self._sequence(failed, handling, depth=0, parallel=parallel)
        if handled and self._draw(st.integers(0, 3)) == 0:
            self._stop(handled, after, parallel=parallel)
            handled, after = [], seen
        after = [path for path in after if path not in handling[len(seen) :]]
        return [{"fromStep": id}, *handled], self._seen(after, id)

    def _branches(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        id = self._add(tails, {"stepType": "Conditional", "condition": self._condition(seen)})
        ways = [{"fromStep": id, "label": label} for label in ("true", "false")]
        return self._alternatives(ways, [*seen, _path("steps", id, "outputs", "result")], depth, parallel)

    def _routes(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        cases = [
            {"matchType": "RANGE", "match": {"gte": 0, "lt": 2}, "output": "few", "route": "few"},
            {"matchType": "EQ", "match": self._draw(_SCALARS), "output": {"x": 1}, "route": "same"},
        ]
        config = {"value": self._value(seen), "cases": cases, "default": "else"}
        id = self._add(tails, {"stepType": "Switch", "config": config})
        ways = [{"fromStep": id, "label": label} for label in ("few", "same", "default")]
        return self._alternatives(ways, self._seen(seen, id), depth, parallel)

    def _by_edges(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        """Edges with conditions, and one without."""
        id = self._add(tails, self._log(seen, depth))
        ways: list[Tail] = [
            {"fromStep": id, "condition": self._condition(seen), "priority": priority}
            for priority in self._draw(st.lists(st.integers(-2, 2), min_size=1, max_size=2, unique=True))
        ]
        return self._alternatives([*ways, {"fromStep": id}], seen, depth, parallel)

    def _alternatives(
        self, ways: list[Tail], seen: list[str], depth: int, parallel: bool
    ) -> tuple[list[Tail], list[str]]:
        tails: list[Tail] = []
        after = list(seen)
        for way in ways:
            end, here = self._sequence([way], list(seen), depth=depth - 1, parallel=parallel)
            if len(ways) > 1 and end and self._draw(st.integers(0, 7)) == 0:
                self._stop(end, here, parallel=parallel)
                end = []
            tails += end
            after += [path for path in here if end and path not in after]
        return tails, after

    def _parallel(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        id = self._add(tails, self._log(seen, depth))
        ends: list[Tail] = [{"fromStep": id}] if self._draw(st.booleans()) else []
        after = list(seen)
        for _ in range(self._draw(st.integers(2, 3)) - len(ends)):
            end, here = self._plain([{"fromStep": id}], list(seen), depth - 1, True)
            end, here = self._sequence(end, here, depth=depth - 1, parallel=True)
            ends += end
            after += [path for path in here if end and path not in after]
        return ends, after

    def _diamond(self, tails: list[Tail], seen: list[str], depth: int, parallel: bool) -> tuple[list[Tail], list[str]]:
        """Two branches, one of which waits for the other on the way: b → c as well as a → c."""
        top = self._add(tails, self._log(seen, depth))
        left = self._add([{"fromStep": top}], self._agent(seen, depth))
        right = self._add([{"fromStep": top}, {"fromStep": left}], self._agent(self._seen(seen, left), depth))
        far = self._add([{"fromStep": top}], self._delay(seen, depth))
        return [{"fromStep": right}, {"fromStep": far}], self._seen(self._seen(seen, left), right)

    # steps

    def _agent(self, seen: list[str], depth: int) -> Json:
        mapping = {"sku": self._text(seen), "note": {"valueType": "immediate", "value": self._draw(_TEXT)}}
        return {
            "stepType": "Agent",
            "agentId": "shop",
            "capabilityId": "order",
            "inputMapping": mapping,
            "retryDelay": 1,
        }

    def _refusing(self, seen: list[str], depth: int) -> Json:
        retries = self._draw(st.integers(0, 2))
        step = self._agent(seen, depth)
        return {**step, "capabilityId": self._draw(st.sampled_from(("refuse", "stumble"))), "maxRetries": retries}

    def _refusing_child(self, seen: list[str], depth: int) -> Json:
        return {"stepType": "EmbedWorkflow", "childWorkflowId": "child-refuses", "maxRetries": 0}

    def _embed(self, seen: list[str], depth: int) -> Json:
        mapping = {"value": self._text(seen)}
        return {"stepType": "EmbedWorkflow", "childWorkflowId": "child-echo", "inputMapping": mapping}

    def _log(self, seen: list[str], depth: int) -> Json:
        level = self._draw(st.sampled_from(("debug", "info", "warn", "error")))
        return {"stepType": "Log", "message": "here", "level": level, "context": {"x": self._value(seen)}}

    def _delay(self, seen: list[str], depth: int) -> Json:
        return {
            "stepType": "Delay",
            "durationMs": {"valueType": "immediate", "value": self._draw(st.integers(0, 2_000))},
        }

    def _filter(self, seen: list[str], depth: int) -> Json:
        operation = {"type": "operation", "op": "NE", "arguments": [_reference("item"), self._value(seen)]}
        return {"stepType": "Filter", "config": {"value": self._list(seen), "condition": operation}}

    def _group(self, seen: list[str], depth: int) -> Json:
        return {"stepType": "GroupBy", "config": {"value": self._list(seen), "key": "kind", "expectedKeys": ["x"]}}

    def _switch(self, seen: list[str], depth: int) -> Json:
        cases = [
            {"matchType": "BETWEEN", "match": [0, 2], "output": {"x": _reference("variables._instance_id")}},
            {"matchType": "IN", "match": ["x", 3], "output": [1, None]},
        ]
        return {"stepType": "Switch", "config": {"value": self._value(seen), "cases": cases, "default": None}}

    def _wait(self, seen: list[str], depth: int) -> Json:
        step: Json = {"stepType": "WaitForSignal", "timeoutMs": {"valueType": "immediate", "value": 1_000}}
        if self._draw(st.booleans()):
            step["onWait"] = self._body([*seen, "variables._signal_id"], depth=0, avoid=frozenset(self.steps))
        return step

    def _split(self, seen: list[str], depth: int) -> Json:
        config = self._draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "parallelism": st.integers(0, 3),
                    "sequential": st.booleans(),
                    "dontStopOnFailed": st.booleans(),
                    "batchSize": st.integers(0, 2),
                    "maxRetries": st.integers(0, 1),
                },
            )
        )
        config |= {"value": self._list(seen), "variables": {"passed": self._value(seen)}, "retryDelay": 1}
        sees = ["item", "data", "variables.passed", "variables._index", "variables._loop_indices", "variables._item"]
        return {"stepType": "Split", "config": config, "subgraph": self._body(sees, depth=depth - 1)}

    def _while(self, seen: list[str], depth: int) -> Json:
        times = {"valueType": "immediate", "value": self._draw(st.integers(0, 2))}
        condition = {"type": "operation", "op": "LT", "arguments": [_reference("loop.index"), times]}
        config = {"maxIterations": 5, "variables": {"passed": self._value(seen)}}
        sees = ["loop.index", "loop.outputs", "variables.passed", "variables._previousOutputs", "variables._index"]
        return {
            "stepType": "While", "condition": condition, "config": config, "subgraph": self._body(sees, depth=depth - 1)
        }  # fmt: skip

    def _body(self, sees: list[str], *, depth: int, avoid: frozenset[str] = frozenset()) -> Json:
        return _Graph(self.shared, roots=[*sees, "workflow.inputs"], avoid=avoid).whole(depth=depth)

    # values

    def _value(self, seen: list[str]) -> Json:
        path = st.sampled_from(seen)
        return self._draw(  # type: ignore[no-any-return]
            st.one_of(
                path.map(_reference),
                _CONSTANTS.map(lambda value: {"valueType": "immediate", "value": value}),
                path.map(lambda text: {"valueType": "template", "value": f"-{{{{ {text} }}}}-"}),
                path.map(lambda text: {"valueType": "composite", "value": {"x": _reference(text), "y": _immediate(1)}}),
                path.map(lambda text: {"valueType": "composite", "value": [_reference(text)]}),
            )
        )

    def _text(self, seen: list[str]) -> Json:
        if self._draw(st.booleans()):
            return _immediate(self._draw(_TEXT))
        return {"valueType": "template", "value": f"x{{{{ {self._draw(st.sampled_from(seen))} }}}}"}

    def _list(self, seen: list[str]) -> Json:
        if "data.lines" in seen and self._draw(st.booleans()):
            return _reference("data.lines")
        return _immediate(self._draw(_LINES))

    def _condition(self, seen: list[str]) -> Any:
        left, right = self._value(seen), self._value(seen)
        binary = st.sampled_from(
            ("EQ", "NE", "GT", "GTE", "LT", "LTE", "STARTS_WITH", "ENDS_WITH", "CONTAINS", "IN", "NOT_IN")
        )
        unary = st.sampled_from(("NOT", "LENGTH", "IS_DEFINED", "IS_EMPTY", "IS_NOT_EMPTY"))
        two = {"type": "operation", "op": self._draw(binary), "arguments": [left, right]}
        one = {"type": "operation", "op": self._draw(unary), "arguments": [left]}
        both = {"type": "operation", "op": self._draw(st.sampled_from(("AND", "OR"))), "arguments": [one, two]}
        return self._draw(st.sampled_from((two, one, both, left, self._draw(st.booleans()))))

    # graph

    def _add(self, tails: list[Tail], step: Json) -> str:
        self.shared.budget -= 1
        id = self._new_id(step)
        if self._draw(st.booleans()):
            step["name"] = f"Step {id}"
        self.steps[id] = step
        self.edges += [{**tail, "toStep": id} for tail in tails]
        return id

    def _new_id(self, step: Json) -> str:
        if step["stepType"] == "EmbedWorkflow":
            self.shared.embedded += 1
            return f"child {self.shared.embedded}"
        base: str = self._draw(st.sampled_from(_IDS))
        names = [base, *(f"{base}{number}" for number in range(len(self.steps) + len(self.avoid) + 1))]
        return next(id for id in names if id not in self.steps and id not in self.avoid)

    def _stop(self, tails: list[Tail], seen: list[str], *, parallel: bool) -> None:
        """End the graph here: by failing, or where no branch runs beside this one also by a Finish."""
        if parallel or self._draw(st.booleans()):
            context = {"x": self._value(seen)}
            self._add(tails, {"stepType": "Error", "code": "STOP", "message": "stop", "context": context})
        else:
            self._end(tails, seen)

    def _end(self, tails: list[Tail], seen: list[str]) -> None:
        if tails or not self.steps:
            mapping = {name: self._value(seen) for name in ("x", "y.z")}
            self._add(tails, {"stepType": "Finish", "inputMapping": mapping})

    def _seen(self, seen: list[str], id: str) -> list[str]:
        return [*seen, _path("steps", id, "outputs")]


def _path(*parts: str) -> str:
    """As a reference and as a template, so keys are always quoted."""
    return parts[0] + "".join(f"['{part}']" for part in parts[1:])


def _reference(path: str) -> Json:
    return {"valueType": "reference", "value": path}


def _immediate(value: object) -> Json:
    return {"valueType": "immediate", "value": value}


def _is(path: str, value: str) -> Json:
    return {"type": "operation", "op": "EQ", "arguments": [_reference(path), _immediate(value)]}
