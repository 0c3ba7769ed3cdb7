"""The structure of a graph: who follows whom, what can have run before what, where parallel branches meet.

Worked out once from the steps and edges, for the validator and the compiler. Edges to or from steps that do not exist
are left out here, as the validator reports them. In a graph with a circle of edges, `cycle` names it; order, ancestors
and merges are then those of what remains when the edges that close a circle are left out.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from .model import (
    DEFAULT_ROUTE,
    ON_ERROR,
    ConditionalStep,
    Edge,
    ErrorStep,
    FinishStep,
    Graph,
    Step,
    SwitchStep,
)

BRANCHES = ("true", "false")

EXIT = None
"""Where branches meet that do not meet at a step: the end of the graph."""


def labels_of(step: Step) -> tuple[str | None, ...]:
    """The labels by which a step goes on when it has finished; None is the normal way. Ending steps have none."""
    match step:
        case FinishStep() | ErrorStep():
            return ()
        case ConditionalStep():
            return BRANCHES
        case SwitchStep() if step.routes:
            return (*sorted(step.routes), DEFAULT_ROUTE)
        case _:
            return (None,)


class Order:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        steps = graph.steps
        self.edges: tuple[Edge, ...] = tuple(
            edge for edge in graph.execution_plan if edge.from_step in steps and edge.to_step in steps
        )
        self._out: dict[str, list[Edge]] = {id: [] for id in steps}
        self._in: dict[str, list[Edge]] = {id: [] for id in steps}
        for edge in self.edges:
            self._out[edge.from_step].append(edge)
            self._in[edge.to_step].append(edge)
        self.cycle: tuple[str, ...] | None = None
        self.order: tuple[str, ...] = tuple(self._sorted())
        self._position = {id: position for position, id in enumerate(self.order)}

    # edges

    def out(self, id: str) -> tuple[Edge, ...]:
        """The edges that leave a step, as they stand in the plan."""
        return tuple(self._out[id])

    def into(self, id: str) -> tuple[Edge, ...]:
        return tuple(self._in[id])

    def normal(self, id: str) -> tuple[Edge, ...]:
        """The edges that leave a step that has finished, those with a condition first, by descending priority."""
        edges = [edge for edge in self._out[id] if edge.label != ON_ERROR]
        return tuple(sorted(edges, key=_by_priority))

    def on_error(self, id: str) -> tuple[Edge, ...]:
        """The edges that leave a failed step, in the order in which they are tried."""
        edges = [edge for edge in self._out[id] if edge.label == ON_ERROR]
        return tuple(sorted(edges, key=_by_priority))

    def successors(self, id: str) -> tuple[str, ...]:
        """The steps that may come right after this one, also by a failure, each once."""
        return tuple(dict.fromkeys(edge.to_step for edge in self._out[id]))

    def predecessors(self, id: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(edge.from_step for edge in self._in[id]))

    def fan_out(self, id: str) -> tuple[str, ...]:
        """The first steps of the parallel branches that leave a step; empty unless there are several.

        Branches are parallel where several unlabelled edges without a condition leave a step that none with a
        condition leaves.
        """
        plain = [edge for edge in self._out[id] if edge.label is None]
        if any(edge.condition is not None for edge in plain):
            return ()
        targets = tuple(dict.fromkeys(edge.to_step for edge in plain))
        return targets if len(targets) > 1 else ()

    # what comes before and after

    @cached_property
    def reachable(self) -> frozenset[str]:
        """All steps that a way leads to from the entry point."""
        return self.reached_from(self.graph.entry_point)

    def reached_from(self, id: str) -> frozenset[str]:
        """`id`, if it exists, and all that may come after it."""
        found: set[str] = set()
        waiting = [id] if id in self.graph.steps else []
        while waiting:
            here = waiting.pop()
            if here not in found:
                found.add(here)
                waiting += self.successors(here)
        return frozenset(found)

    def completed_before(self, earlier: str, later: str) -> bool:
        """Whether there is a way on which `earlier` has finished, and not failed, before `later` begins."""
        return bool(self._finished[later] >> self._position[earlier] & 1)

    def runs_before(self, earlier: str, later: str) -> bool:
        """Whether there is a way on which `earlier` has finished or failed before `later` begins."""
        return bool(self._begun[later] >> self._position[earlier] & 1)

    @cached_property
    def handling(self) -> frozenset[str]:
        """The steps that may run because another failed: those have `steps.__error`."""
        found: set[str] = set()
        for id in self.order:
            after = any(edge.label == ON_ERROR or edge.from_step in found for edge in self._in[id])
            if after:
                found.add(id)
        return frozenset(found)

    @cached_property
    def _begun(self) -> Mapping[str, int]:
        """For each step the bits of the positions of those that may have run before it."""
        return self._before(through_failure=True)

    @cached_property
    def _finished(self) -> Mapping[str, int]:
        return self._before(through_failure=False)

    def _before(self, *, through_failure: bool) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for id in self.order:
            bits = 0
            for edge in self._forward_into(id):
                bits |= found[edge.from_step]
                if through_failure or edge.label != ON_ERROR:
                    bits |= 1 << self._position[edge.from_step]
            found[id] = bits
        return found

    def _forward_into(self, id: str) -> Iterator[Edge]:
        position = self._position[id]
        return (edge for edge in self._in[id] if self._position[edge.from_step] < position)

    # where branches come together

    def merge(self, id: str) -> str | None:
        """The first step that every way from this one leads through; `EXIT` if there is none.

        Ways that end in an Error count nothing: they leave the graph by failing.
        """
        return self._merges[id]

    def open_labels(self, id: str) -> tuple[str | None, ...]:
        """The labels by which a step may go on where no edge is sure to be taken: there the graph ends, with null."""
        step = self.graph.steps[id]
        decides = isinstance(step, ConditionalStep)  # by its own condition: its edges need none
        sure = {edge.label for edge in self._out[id] if edge.condition is None or decides}
        return tuple(label for label in labels_of(step) if label not in sure)

    def ends(self, id: str) -> bool:
        """Whether the graph may end after this step without failing."""
        return isinstance(self.graph.steps[id], FinishStep) or bool(self.open_labels(id))

    @cached_property
    def fails_only(self) -> frozenset[str]:
        """Steps from which every way ends in an Error."""
        found: set[str] = set()
        for id in reversed(self.order):
            after = [edge.to_step for edge in self._forward_out(id)]
            if not self.ends(id) and all(target in found for target in after):
                found.add(id)
        return frozenset(found)

    @cached_property
    def _merges(self) -> Mapping[str, str | None]:
        """Immediate post-dominators. As there is no circle, one pass from the end is enough."""
        found: dict[str, str | None] = {}
        for id in reversed(self.order):
            targets = [edge.to_step for edge in self._forward_out(id) if edge.to_step not in self.fails_only]
            if not targets or self.ends(id):
                found[id] = EXIT
                continue
            common: str | None = targets[0]
            for target in targets[1:]:
                common = self._meeting(common, target, found)
            found[id] = common
        return found

    def _meeting(self, left: str | None, right: str | None, merges: Mapping[str, str | None]) -> str | None:
        while left != right:
            if left is None or right is None:
                return EXIT
            if self._position[left] < self._position[right]:
                left = merges[left]
            else:
                right = merges[right]
        return left

    def _forward_out(self, id: str) -> Iterator[Edge]:
        position = self._position[id]
        return (edge for edge in self._out[id] if self._position[edge.to_step] > position)

    # sorting

    def _sorted(self) -> list[str]:
        """Topologically, steps without order between them as they stand in the document; depth first, without
        recursion, since a thousand steps in a row are legal."""
        done: list[str] = []
        seen: set[str] = set()
        for root in reversed(self.graph.steps):
            self._visit(root, seen, done)
        done.reverse()
        return done

    def _visit(self, root: str, seen: set[str], done: list[str]) -> None:
        path: dict[str, Iterator[str]] = {}
        if root not in seen:
            seen.add(root)
            path[root] = iter(reversed(self.successors(root)))
        while path:
            here, following = next(reversed(path.items()))
            target = next(following, None)
            if target is None:
                path.popitem()
                done.append(here)
            elif target in path and self.cycle is None:
                around = list(path)
                self.cycle = (*around[around.index(target) :], target)
            elif target not in seen:
                seen.add(target)
                path[target] = iter(reversed(self.successors(target)))


def _by_priority(edge: Edge) -> tuple[bool, int]:
    return edge.condition is None, -(edge.priority or 0)
