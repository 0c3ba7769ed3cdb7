"""The ways on from each step of a graph, and where the ways of a fork come together.

Steps are numbered so that every edge leads to a higher number; sets of steps are bits of a number, so that a graph of a
thousand steps is no matter.

Invariants: of all places where branches could be joined, the one with the most steps behind it is taken, so code nests
as little as it can; a step is emitted once, but for an end without steps behind it, which may stand at each way to it.
What several failures or choices lead to, and what ends the graph, is a tail: a function, called at each way to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtara.protocol.errors import BadInput

from ..model import DEFAULT_ROUTE, ON_ERROR, ConditionalStep, Edge, ErrorStep, FinishStep, Graph, SwitchStep
from ..model_conditions import Operation
from ..model_values import Value

Test = str | Operation | Value | None
Targets = tuple[int, ...]


class CannotCompile(BadInput):
    """The validator would have refused the document."""

    template = "workflow {workflow} cannot be compiled: {reason}"
    workflow: str
    reason: str


@dataclass(frozen=True, slots=True)
class Way:
    """Taken if `test` holds: a label (of a Conditional or Switch), a condition, or None for the last resort."""

    test: Test
    targets: Targets


@dataclass(frozen=True, slots=True)
class Merge:
    """Where branches come together (None: nowhere), and all steps that lie before it. `regular`: each branch has steps
    of its own, so it can stand in a block of its own."""

    at: int | None
    steps: int
    regular: bool


class Ways:
    """The structure of one graph."""

    def __init__(self, graph: Graph, *, workflow: str) -> None:
        self.ids = _numbered(graph, workflow)
        self._number = {id: n for n, id in enumerate(self.ids)}
        self.ways: list[list[Way]] = []
        self.errors: list[list[Way]] = []
        leaving: dict[str, list[Edge]] = {id: [] for id in self.ids}
        for edge in graph.execution_plan:
            if edge.from_step in leaving:
                leaving[edge.from_step].append(edge)
        for id in self.ids:
            self.ways.append(self._normal(graph, id, [edge for edge in leaving[id] if edge.label != ON_ERROR]))
            self.errors.append(self._by_condition([edge for edge in leaving[id] if edge.label == ON_ERROR]))
        self.next = [self.bits(self.targets(n)) for n in range(len(self.ids))]
        self.reach = [0] * len(self.ids)
        for n in reversed(range(len(self.ids))):
            self.reach[n] = 1 << n
            for target in bits_of(self.next[n]):
                self.reach[n] |= self.reach[target]
        ends = (n for n, id in enumerate(self.ids) if isinstance(graph.steps[id], FinishStep | ErrorStep))
        self.ends = self.bits(n for n in ends if not self.next[n])
        self.tails = self.bits(self._tails())
        errors = self.bits(n for n in bits_of(self.ends) if isinstance(graph.steps[self.ids[n]], ErrorStep))
        plainly = self.bits(target for n in range(len(self.ids)) for target in self._plainly(n))
        fails = (n for n in bits_of(self.tails) if not self.reach[n] & self.ends & ~errors)
        self.fails = (errors & ~plainly) | self.bits(fails)

    def number(self, id: str) -> int:
        return self._number[id]

    def targets(self, n: int) -> Targets:
        """Wherever a step may lead."""
        ways = (*self.ways[n], *self.errors[n])
        return tuple(dict.fromkeys(target for way in ways for target in way.targets))

    @staticmethod
    def bits(numbers: Sequence[int] | Iterator[int]) -> int:
        found = 0
        for n in numbers:
            found |= 1 << n
        return found

    def merge(self, branches: Sequence[Targets], stop: int | None, *, copies: int) -> Merge:
        """Where the branches of a choice come together before `stop`. `copies`: how many steps must get less nested for
        ends (and calls of tails) to be written at each way to them."""
        best = self._regular(branches, stop, ends=0)
        other = self._regular(branches, stop, ends=self.ends | self.tails)
        if best is None or self._behind(other, stop) - self._behind(best, stop) >= copies:
            best = other
        return best or self._irregular(branches, stop)

    def fork(self, starts: Targets, stop: int | None) -> Merge:
        """Where parallel branches come together. A way that ends in an error does not count; what gives a result may be
        where they meet, and is not done twice."""
        branches = [(start,) for start in starts]
        best = self._regular(branches, stop, ends=0) or self._regular(branches, stop, ends=self.fails)
        return best or self._irregular(branches, stop)

    def ends_alone(self, starts: Targets, stop: int | None, others: Targets) -> bool:
        """Whether all that follows `starts` ends the graph, without `stop` and without any step of `others`."""
        own, _ = self.private(starts, stop, None, ends=self.ends | self.tails)
        led = self.bits(starts)
        for n in bits_of(own):
            led |= self.next[n]
        shared = 0
        for n in others:
            shared |= self.reach[n]
        return not (own & shared or self.may_stop(own) or (stop is not None and led >> stop & 1))

    def private(self, starts: Targets, stop: int | None, at: int | None, *, ends: int = 0) -> tuple[int, bool]:
        """The steps from `starts` on, without `at` and `stop`; and whether a way leads past `at` to `stop`."""
        until = 0 if stop is None else 1 << stop
        edge = ends | until | (0 if at is None else 1 << at)
        found, following = 0, self.bits(starts)
        past = False
        while following:
            past = past or (at is not None and at != stop and bool(following & until))
            new = following & ~found & ~edge
            found |= new
            following = 0
            for n in bits_of(new):
                following |= self.next[n]
        return found, past

    def _tails(self) -> Iterator[int]:
        """Steps that several choices or failures lead to, and behind which everything ends, as in a shared handler."""
        for n in range(1, len(self.ids)):
            behind = self.reach[n] & ~self.ends
            sources = [m for m in range(n) if self.next[m] >> n & 1]
            if len(sources) < 2 or self.ends >> n & 1 or any(n in self._plainly(m) for m in sources):
                continue
            entered = any(self.next[m] & behind & ~(1 << n) for m in range(len(self.ids)) if not behind >> m & 1)
            if not entered and not self.may_stop(behind):
                yield n

    def _plainly(self, n: int) -> Targets:
        """Where a step leads without a choice."""
        ways = self.ways[n]
        return ways[0].targets if len(ways) == 1 else ()

    def may_stop(self, steps: int) -> bool:
        """Whether one of `steps` can be the last although it is no end."""
        rest = bits_of(steps & ~self.ends)
        return any(not way.targets for n in rest for way in (self.ways[n] or [Way(None, ())]))

    def _regular(self, branches: Sequence[Targets], stop: int | None, *, ends: int) -> Merge | None:
        for at in self._candidates(branches, stop, ends):
            found, behind = 0, (0 if at is None else self.reach[at] & ~ends)
            for starts in branches:
                own, past = self.private(starts, stop, at, ends=ends)
                if past or own & (behind | found):
                    break
                found |= own
            else:
                return Merge(stop if at is None else at, found, True)
        return None

    def _irregular(self, branches: Sequence[Targets], stop: int | None) -> Merge:
        starts = tuple(dict.fromkeys(target for branch in branches for target in branch))
        for at in self._candidates(branches, stop, 0):
            if at in starts:
                continue
            own, past = self.private(starts, stop, at, ends=self.fails)
            if at is None or not (past or own & self.reach[at] & ~self.fails):
                return Merge(stop if at is None else at, own, False)
        raise AssertionError("the stop is a candidate, too")

    def _candidates(self, branches: Sequence[Targets], stop: int | None, ends: int) -> Iterator[int | None]:
        """Where branches might come together, those with most steps behind them first; None: only at `stop`."""
        shared, seen, starts = 0, 0, 0
        for branch in branches:
            reached = 0
            for start in branch:
                reached |= self.reach[start]
                starts |= 1 << start
            shared |= reached & seen
            seen |= reached
        outside = 0 if stop is None else self.reach[stop]
        yield from bits_of((shared | starts) & ~outside & ~ends)
        yield None

    def _behind(self, merge: Merge | None, stop: int | None) -> int:
        if merge is None or merge.at is None or merge.at == stop:
            return 0
        return (self.reach[merge.at] & ~(0 if stop is None else self.reach[stop])).bit_count()

    def _normal(self, graph: Graph, id: str, edges: list[Edge]) -> list[Way]:
        step = graph.steps[id]
        if isinstance(step, ConditionalStep):
            return [Way(label, self._to(edge for edge in edges if edge.label == label)) for label in ("true", "false")]
        if isinstance(step, SwitchStep) and (step.routes or any(edge.label is not None for edge in edges)):
            labels = dict.fromkeys(edge.label for edge in edges if edge.label not in (None, DEFAULT_ROUTE))
            ways = [Way(label, self._to(edge for edge in edges if edge.label == label)) for label in labels]
            return [*ways, Way(None, self._to(edge for edge in edges if edge.label in (None, DEFAULT_ROUTE)))]
        return self._by_condition(edges)

    def _by_condition(self, edges: list[Edge]) -> list[Way]:
        """Conditional edges by priority, the highest first, and what is left if none of them is taken."""
        if not edges:
            return []
        tested = sorted((edge for edge in edges if edge.condition is not None), key=lambda edge: -(edge.priority or 0))
        ways = [Way(edge.condition, self._to(iter([edge]))) for edge in tested]
        return [*ways, Way(None, self._to(edge for edge in edges if edge.condition is None))]

    def _to(self, edges: Iterator[Edge]) -> Targets:
        return tuple(dict.fromkeys(self._number[edge.to_step] for edge in edges))


def bits_of(bits: int) -> Iterator[int]:
    """The numbers in a set, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _numbered(graph: Graph, workflow: str) -> list[str]:
    """The steps that the entry point leads to, those with more steps behind them first."""
    following: dict[str, list[str]] = {id: [] for id in graph.steps}
    for edge in graph.execution_plan:
        if edge.from_step not in following or edge.to_step not in following:
            raise CannotCompile(workflow=workflow, reason=f"the edge {edge.from_step} → {edge.to_step} leads nowhere")
        following[edge.from_step].append(edge.to_step)
    if graph.entry_point not in following:
        raise CannotCompile(workflow=workflow, reason=f"its entry point {graph.entry_point!r} is no step of it")
    order = _backwards(graph.entry_point, following, workflow)
    place = {id: n for n, id in enumerate(order)}
    reach: list[int] = []
    for n, id in enumerate(order):
        found = 1 << n
        for target in following[id]:
            found |= reach[place[target]]
        reach.append(found)
    return sorted(order, key=lambda id: (-reach[place[id]].bit_count(), -place[id]))


def _backwards(entry: str, following: dict[str, list[str]], workflow: str) -> list[str]:
    """The steps from `entry` on, each behind all that follow it. It is no recursion: a graph may be a long line."""
    order: list[str] = []
    open_now: dict[str, Iterator[str]] = {entry: iter(following[entry])}
    done: set[str] = set()
    while open_now:
        id = next(reversed(open_now))
        target = next(open_now[id], None)
        if target is None:
            del open_now[id]
            done.add(id)
            order.append(id)
        elif target in open_now:
            raise CannotCompile(workflow=workflow, reason=f"its steps go in a circle at {target!r}; use a While")
        elif target not in done:
            open_now[target] = iter(following[target])
    return order
