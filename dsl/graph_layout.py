"""Where the steps of a graph stand in a drawing: in layers from top to bottom, each below what it follows.

The usual four passes (Sugiyama): layers by the longest way, edges over several layers broken up by points, the order
within layers by the mean of the neighbours, then places as near to the neighbours as the order allows. A subgraph is
laid out by itself and is a part of its step's box.

Invariant: boxes of a graph never overlap, and lie within its drawing.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .model import Edge, Graph, Step
from .order import Order
from .walk import subgraphs

CHARACTER: Final = 7.2  # px: a little more than most letters of a 12 px font have
LINE: Final = 16.0
PADDING: Final = 12.0
GAP_X: Final = 28.0
GAP_Y: Final = 46.0
MARGIN: Final = 16.0
MIN_WIDTH: Final = 96.0
MAX_TITLE: Final = 34  # characters; longer ones are cut
_SWEEPS: Final = 6
_POINT: Final = 12.0  # px: what an edge takes in a layer that it passes


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A step's; `inner` is drawn at its bottom, by (x, y) within the box."""

    id: str
    step: Step
    title: str
    x: float
    y: float
    width: float
    height: float
    inner: "tuple[float, float, Drawing] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """An edge, from the bottom of a box over points to the top of another."""

    edge: Edge
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    width: float
    height: float
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    entry: str


@dataclass(slots=True, kw_only=True)
class _Node:
    """A step, or a point of an edge that passes a layer."""

    layer: int
    width: float
    height: float
    id: str | None = None
    inner: Drawing | None = None
    x: float = 0.0  # of its middle


def lay_out(graph: Graph) -> Drawing:
    order = Order(graph)
    steps = _steps(graph, order)
    layers: list[list[_Node]] = [[] for _ in range(1 + max((node.layer for node in steps.values()), default=0))]
    for id in order.order:
        layers[steps[id].layer].append(steps[id])
    routes = [(edge, _route(edge, steps, layers)) for edge in order.edges]
    links = [link for _, route in routes for link in pairwise(route)]
    _sort(layers, links)
    _place(layers, links)
    return _drawn(graph, layers, routes)


def text_width(text: str) -> float:
    wide = sum(1 for character in text if unicodedata.east_asian_width(character) in "WF")
    return CHARACTER * (len(text) + wide)


def cut(text: str) -> str:
    """One line that is not too long."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= MAX_TITLE else f"{line[: MAX_TITLE - 1]}…"


def _steps(graph: Graph, order: Order) -> dict[str, _Node]:
    found: dict[str, _Node] = {}
    for id in order.order:
        before = [found[other].layer for other in order.predecessors(id) if other in found]
        step = graph.steps[id]
        inner = next((lay_out(nested) for nested, _ in subgraphs(step)), None)
        width = max(text_width(cut(step.title)), text_width(step.step_type)) + 2 * PADDING
        height = 2 * LINE + 1.5 * PADDING
        if inner is not None:
            width, height = max(width, inner.width + 2 * PADDING), height + inner.height + PADDING
        layer = 1 + max(before, default=-1)
        found[id] = _Node(layer=layer, width=max(width, MIN_WIDTH), height=height, id=id, inner=inner)
    return found


def _route(edge: Edge, steps: dict[str, _Node], layers: list[list[_Node]]) -> list[_Node]:
    """From step to step, with a point in each layer between them. One that leads back has none."""
    start, end = steps[edge.from_step], steps[edge.to_step]
    route = [start]
    for layer in range(start.layer + 1, end.layer):
        point = _Node(layer=layer, width=_POINT, height=0)
        layers[layer].append(point)
        route.append(point)
    return [*route, end]


def _neighbours(links: list[tuple[_Node, _Node]]) -> tuple[dict[int, list[_Node]], dict[int, list[_Node]]]:
    above: dict[int, list[_Node]] = {}
    below: dict[int, list[_Node]] = {}
    for upper, lower in links:
        if upper.layer < lower.layer:
            below.setdefault(id(upper), []).append(lower)
            above.setdefault(id(lower), []).append(upper)
    return above, below


def _sort(layers: list[list[_Node]], links: list[tuple[_Node, _Node]]) -> None:
    """Fewer crossings: each node at the mean of its neighbours' positions, downwards and upwards in turns."""
    above, below = _neighbours(links)
    position = {id(node): index for layer in layers for index, node in enumerate(layer)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            beside = above if down else below
            means = {id(node): _mean([position[id(other)] for other in beside.get(id(node), [node])]) for node in layer}
            layer.sort(key=lambda node, means=means: means[id(node)])  # type: ignore[misc]
            position |= {id(node): index for index, node in enumerate(layer)}


def _place(layers: list[list[_Node]], links: list[tuple[_Node, _Node]]) -> None:
    above, below = _neighbours(links)
    for layer in layers:
        _spread(layer, [0.0] * len(layer))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            beside = above if down else below
            _spread(layer, [_mean([other.x for other in beside.get(id(node), [node])]) for node in layer])


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _spread(layer: list[_Node], wanted: list[float]) -> None:
    """As near to where each wants to be as the order and the gaps allow; on the mean, just there."""
    right = float("-inf")
    for node, place in zip(layer, wanted, strict=True):
        node.x = max(place, right + GAP_X + node.width / 2)
        right = node.x + node.width / 2
    if layer:
        shift = sum(place - node.x for node, place in zip(layer, wanted, strict=True)) / len(layer)
        for node in layer:
            node.x += shift


def _drawn(graph: Graph, layers: list[list[_Node]], routes: list[tuple[Edge, list[_Node]]]) -> Drawing:
    nodes = [node for layer in layers for node in layer]
    left = min((node.x - node.width / 2 for node in nodes), default=0.0)
    right = max((node.x + node.width / 2 for node in nodes), default=0.0)
    tops: list[float] = []
    y = MARGIN
    for layer in layers:
        tops.append(y)
        y += max((node.height for node in layer), default=0.0) + GAP_Y
    offset = MARGIN - left
    boxes = [_box(graph, node, offset, tops[node.layer]) for node in nodes if node.id is not None]
    by_id = {box.id: box for box in boxes}
    wires = [Wire(edge=edge, points=_points(route, by_id, offset, tops)) for edge, route in routes]
    return Drawing(
        width=right - left + 2 * MARGIN,
        height=y - GAP_Y + MARGIN,
        boxes=tuple(boxes),
        wires=tuple(wires),
        entry=graph.entry_point,
    )


def _box(graph: Graph, node: _Node, offset: float, top: float) -> Box:
    assert node.id is not None
    inner = None
    if node.inner is not None:
        inner = ((node.width - node.inner.width) / 2, node.height - node.inner.height - PADDING, node.inner)
    step = graph.steps[node.id]
    return Box(
        id=node.id,
        step=step,
        title=step.title,
        x=node.x - node.width / 2 + offset,
        y=top,
        width=node.width,
        height=node.height,
        inner=inner,
    )


def _points(
    route: list[_Node], boxes: dict[str, Box], offset: float, tops: list[float]
) -> tuple[tuple[float, float], ...]:
    start, end = route[0], route[-1]
    assert start.id is not None
    assert end.id is not None
    first, last = boxes[start.id], boxes[end.id]
    between: list[tuple[float, float]] = []
    for point in route[1:-1]:
        tallest = max(box.height for box in boxes.values() if box.y == tops[point.layer])
        between += [(point.x + offset, tops[point.layer]), (point.x + offset, tops[point.layer] + tallest)]
    return (
        (first.x + first.width / 2, first.y + first.height),
        *between,
        (last.x + last.width / 2, last.y),
    )
