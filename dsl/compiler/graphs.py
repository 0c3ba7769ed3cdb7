"""One graph as the body of a function: ordinary control flow wherever the graph has the shape of it.

A choice is an `if`, a handler an `except`, parallel branches are functions awaited `together`; behind them goes on what
comes behind them in the graph. Where branches run into one another in a way that blocks cannot have, each step becomes
a function, and `by_readiness` runs them in their order.

Invariants: every step is written once (but for ends, which may stand at each way to them), so the code is no longer
than the graph; blocks do not nest deeper than `MAX_DEPTH`.
"""

from collections.abc import Sequence
from typing import Final

from ..model import ConditionalStep, ErrorStep, FinishStep, Graph, SwitchStep
from .calls import BodyName, call_of
from .printing import Array, Call, Node, Raw, Table, quoted, texts
from .values import condition
from .ways import Merge, Targets, Way, Ways, bits_of
from .writing import Block, Names

MAX_DEPTH: Final = 8  # of nested blocks; Python itself allows 20
_DEEP: Final = 4  # from here on, an end is rather written twice than nested deeper
_WORTH_A_COPY: Final = 4  # steps that must get less nested for that, before
_NEVER: Final = 1_000_000  # unless nothing else works


class GraphCode:
    """Writes one graph into `block`."""

    def __init__(self, graph: Graph, block: Block, names: Names, body: BodyName, *, workflow: str) -> None:
        self._graph = graph
        self._block = block
        self._names = names
        self._body = body
        self._ways = Ways(graph, workflow=workflow)
        self._in_branch = False
        self._in_handler = False
        self._tails: dict[int, str] = {}
        self._in_tail: int | None = None

    def write(self) -> None:
        tails = list(bits_of(self._ways.tails))
        self._tails = {n: self._names.new(self._ways.ids[n], "_and_end") for n in tails}
        for n in tails:
            self._in_tail = n
            with self._block.function(f"async def {self._tails[n]}() -> Any"):
                self._region((n,), None, 1)
        self._in_tail = None
        self._region((self._ways.number(self._graph.entry_point),), None, 0)

    # a line of steps

    def _region(self, starts: Targets, stop: int | None, depth: int) -> None:
        """Everything from `starts` on, up to and without `stop`."""
        here: Targets | None = starts
        while here is not None:
            if len(here) > 1:
                here = self._fork(here, stop, depth)
            elif not here:
                self._block.line("return" if self._in_branch else "return None")
                here = None
            elif here[0] == stop:
                here = None
            else:
                here = self._step(here[0], stop, depth)

    def _step(self, n: int, stop: int | None, depth: int) -> Targets | None:
        """Write a step, and say where it goes on; None: nowhere."""
        step = self._graph.steps[self._ways.ids[n]]
        ways = self._ways.ways[n]
        if n in self._tails and n != self._in_tail:
            self._give(Call(self._tails[n]))
            return None
        if isinstance(step, FinishStep | ErrorStep) and not self._ways.next[n]:
            self._end(n)
            return None
        if not self._ways.errors[n] and len(ways) <= 1:
            self._comment(n)
            self._block.code(self._call(n), before="await ")
            return ways[0].targets if ways else ()
        if depth >= MAX_DEPTH:
            return self._flow((n,), Merge(stop, self._ways.private((n,), stop, None, ends=self._ways.fails)[0], False))
        if self._ways.errors[n]:
            return self._guarded(n, stop, depth)
        return self._chosen(n, stop, depth)

    def _end(self, n: int) -> None:
        self._comment(n)
        call = self._call(n)
        if call.function == "run.error":
            self._block.code(call, before="raise await ", after=self._cause())
        else:
            self._give(call)

    def _give(self, call: Call) -> None:
        """End the graph with what `call` comes to."""
        if self._in_branch:
            end = Call("Finished", [Call(f"await {call.function}", call.args, call.kwargs)])
            self._block.code(end, before="raise ", after=self._cause())
        else:
            self._block.code(call, before="return await ")

    def _cause(self) -> str:
        """A handler's error is known as `steps.__error`; it is no cause of how the graph ends."""
        return " from None" if self._in_handler else ""

    # a choice

    def _chosen(self, n: int, stop: int | None, depth: int) -> Targets | None:
        ways = self._ways.ways[n]
        copies = _WORTH_A_COPY if depth < _DEEP else 1
        merge = self._ways.merge([way.targets for way in ways], stop, copies=copies)
        if not merge.regular:
            return self._flow((n,), Merge(merge.at, merge.steps | 1 << n, False))
        self._comment(n)
        if isinstance(self._graph.steps[self._ways.ids[n]], ConditionalStep):
            self._conditional(n, merge.at, depth)
        else:
            self._block.code(self._call(n), before="route = await " if self._routes(n) else "await ")
            self._tested(ways, merge.at, depth)
        return self._go_on(merge, stop)

    def _conditional(self, n: int, at: int | None, depth: int) -> None:
        call = self._call(n)
        yes, no = (way.targets for way in self._ways.ways[n])
        straight = () if at is None else (at,)
        if yes == straight == no:
            self._block.code(call, before="await ")
            return
        with self._block.within(call, before="if not await " if yes == straight else "if await "):
            self._region(no if yes == straight else yes, at, depth + 1)
        if straight not in (yes, no):
            with self._block.within("else"):
                self._region(no, at, depth + 1)

    def _tested(self, ways: Sequence[Way], at: int | None, depth: int) -> None:
        """The first way whose test holds, else the last."""
        word = "if "
        for way in ways:
            test = self._test(way)
            if test is not None:
                with self._block.within(test, before=word):
                    self._region(way.targets, at, depth + 1)
                word = "elif "
            elif way.targets != (() if at is None else (at,)):
                with self._block.within("else"):
                    self._region(way.targets, at, depth + 1)

    def _test(self, way: Way) -> Node | None:
        if way.test is None:
            return None
        if isinstance(way.test, str):
            return Raw(f"route == {quoted(way.test)}")
        return Call("run.holds", [condition(way.test)])

    # a step with handlers

    def _guarded(self, n: int, stop: int | None, depth: int) -> Targets | None:
        ways, errors = self._ways.ways[n], self._ways.errors[n]
        normal = tuple(dict.fromkeys(target for way in ways for target in way.targets))
        merge = self._ways.merge([normal, *(way.targets for way in errors)], stop, copies=_NEVER)
        is_straight = merge.regular and normal == (merge.at,)
        if not is_straight and all(self._ways.ends_alone(way.targets, stop, normal) for way in errors):
            return self._guarded_by_ends(n, normal, stop, depth)
        if not merge.regular:
            return self._flow((n,), Merge(merge.at, merge.steps | 1 << n, False))
        self._try(n, errors, merge.at, depth)
        if not is_straight or len(ways) > 1:
            with self._block.within("else"):
                if len(ways) > 1:
                    self._tested(ways, merge.at, depth + 1)
                else:
                    self._region(normal, merge.at, depth + 1)
        return self._go_on(merge, stop)

    def _guarded_by_ends(self, n: int, normal: Targets, stop: int | None, depth: int) -> Targets | None:
        """All handlers end the graph, so what comes next needs no block of its own."""
        ways, errors = self._ways.ways[n], self._ways.errors[n]
        if len(ways) <= 1:
            self._try(n, errors, stop, depth)
            return normal
        merge = self._ways.merge([way.targets for way in ways], stop, copies=_NEVER)
        if not merge.regular:
            targets = tuple(target for way in errors for target in way.targets)
            handlers = self._ways.private(targets, stop, None, ends=self._ways.fails)[0]
            return self._flow((n,), Merge(merge.at, merge.steps | handlers | 1 << n, False))
        self._try(n, errors, stop, depth)
        self._tested(ways, merge.at, depth)
        return self._go_on(merge, stop)

    def _try(self, n: int, errors: Sequence[Way], at: int | None, depth: int) -> None:
        """The step and its handlers, up to and without `at`."""
        self._comment(n)
        with self._block.within("try"):
            self._block.code(self._call(n), before="route = await " if self._routes(n) else "await ")
        with self._block.within("except StepError as error"):
            self._block.line("run.caught(error)")
            outer, self._in_handler = self._in_handler, True
            self._handlers(errors, at, depth + 1)
            self._in_handler = outer

    def _handlers(self, errors: Sequence[Way], at: int | None, depth: int) -> None:
        if errors[0].test is None:
            self._region(errors[0].targets, at, depth)
            return
        self._tested([way for way in errors if way.test is not None], at, depth)
        last = errors[-1]
        with self._block.within("else"):
            if last.test is None and last.targets:
                self._region(last.targets, at, depth + 1)
            else:
                self._block.line("raise")

    # parallel branches

    def _fork(self, starts: Targets, stop: int | None, depth: int) -> Targets | None:
        merge = self._ways.fork(starts, stop)
        if not merge.regular:
            return self._flow(starts, merge)
        branches = [start for start in starts if start != merge.at]
        if len(branches) == 1:
            self._region((branches[0],), merge.at, depth)
            return self._go_on(merge, stop)
        calls = [self._branch(start, merge.at, depth) for start in branches]
        self._block.code(Call("together", calls), before="await ")
        return self._go_on(merge, stop)

    def _branch(self, start: int, at: int | None, depth: int) -> Node:
        name = self._names.new(self._ways.ids[start], "_branch")
        with self._block.function(f"async def {name}() -> None"):
            outer = self._in_branch, self._in_handler
            self._in_branch, self._in_handler = True, False
            self._region((start,), at, depth + 1)
            self._in_branch, self._in_handler = outer
        return Call(name)

    # steps by their readiness

    def _flow(self, starts: Targets, merge: Merge) -> Targets | None:
        """The steps of a region as functions, run as soon as those before them have ended."""
        rows: dict[str, Node] = {}
        for n in bits_of(merge.steps):
            id = self._ways.ids[n]
            name = self._names.new(id, "_step")
            with self._block.function(f"async def {name}() -> Sequence[str]"):
                outer = self._in_branch, self._in_handler
                self._in_branch, self._in_handler = True, False
                self._flow_step(n)
                self._in_branch, self._in_handler = outer
            led = [target for target in self._ways.targets(n) if not self._ways.fails >> target & 1]
            rows[id] = Array([Raw(name), texts([self._ways.ids[target] for target in led])], "()")
        first = texts([self._ways.ids[start] for start in starts])
        call = Call("by_readiness", [first, Table(rows)])
        if merge.at is None or not self._ways.may_stop(merge.steps):
            self._block.code(call, before="await ")
            return None if merge.at is None else (merge.at,)
        with self._block.within(call, before=f"if {quoted(self._ways.ids[merge.at])} not in await "):
            self._block.line("return" if self._in_branch else "return None")
        return (merge.at,)

    def _flow_step(self, n: int) -> None:
        step = self._graph.steps[self._ways.ids[n]]
        if isinstance(step, FinishStep | ErrorStep) and not self._ways.next[n]:
            self._end(n)
            return
        self._comment(n)
        errors = self._ways.errors[n]
        if errors:
            with self._block.within("try"):
                self._block.code(self._call(n), before="route = await " if self._routes(n) else "await ")
            with self._block.within("except StepError as error"):
                self._block.line("run.caught(error)")
                self._in_handler = True
                for way in errors:
                    if way.targets:
                        self._leave(way)
                self._in_handler = False
                if errors[-1].test is not None or not errors[-1].targets:
                    self._block.line("raise")
        ways = self._ways.ways[n]
        if isinstance(step, ConditionalStep):
            with self._block.within(self._call(n), before="if await "):
                self._go(ways[0])
            self._go(ways[1])
            return
        if not errors:
            self._block.code(self._call(n), before="route = await " if self._routes(n) else "await ")
        for way in ways or [Way(None, ())]:
            self._leave(way)

    def _leave(self, way: Way) -> None:
        test = self._test(way)
        if test is None:
            self._go(way)
            return
        with self._block.within(test, before="if "):
            self._go(way)

    def _go(self, way: Way) -> None:
        """Say where it goes on. What only fails is done at once: nothing may start that would wait for this step."""
        if len(way.targets) == 1 and self._ways.fails >> way.targets[0] & 1:
            self._region(way.targets, None, 0)
        else:
            self._block.code(texts([self._ways.ids[target] for target in way.targets]), before="return ")

    # shared

    def _go_on(self, merge: Merge, stop: int | None) -> Targets | None:
        return None if merge.at is None or merge.at == stop else (merge.at,)

    def _routes(self, n: int) -> bool:
        return isinstance(self._graph.steps[self._ways.ids[n]], SwitchStep)

    def _comment(self, n: int) -> None:
        step = self._graph.steps[self._ways.ids[n]]
        if step.title != step.id:
            self._block.comment(step.title)

    def _call(self, n: int) -> Call:
        return call_of(self._graph.steps[self._ways.ids[n]], self._body)
