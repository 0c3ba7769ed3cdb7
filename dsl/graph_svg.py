"""A graph as SVG: one file without scripts, fonts or links, readable on light and on dark ground.

Invariant: what comes from the document is escaped text, never markup.
"""

from collections.abc import Iterator
from html import escape
from typing import Final

from .graph_layout import LINE, PADDING, Box, Drawing, Wire, cut, lay_out
from .model import ON_ERROR, Graph

_HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" \
viewBox="0 0 {width:.0f} {height:.0f}" role="img">
<title>{title}</title>
<style>
  svg {{ color: #1f2937; font: 12px system-ui, sans-serif }}
  text {{ fill: currentColor }}
  .kind {{ font-size: 10px; opacity: .65 }}
  .box {{ fill: currentColor; fill-opacity: .05; stroke: currentColor; stroke-opacity: .55 }}
  .entry {{ stroke-width: 2.5; stroke-opacity: .9 }}
  .wire {{ fill: none; stroke: currentColor; stroke-opacity: .6; stroke-width: 1.3 }}
  .failed {{ stroke: #d9534f; stroke-opacity: 1; stroke-dasharray: 5 4 }}
  .label {{ font-size: 10px }}
  @media (prefers-color-scheme: dark) {{ svg {{ color: #e5e7eb }} }}
</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 8 4 0 8z" fill="currentColor" fill-opacity=".75"/></marker></defs>
"""
_COLOURS: Final = {
    "Finish": "#2e9e6b",
    "Error": "#d9534f",
    "Agent": "#3b82c4",
    "Conditional": "#c58a1b",
    "Switch": "#c58a1b",
    "Split": "#8b6bc9",
    "While": "#8b6bc9",
    "EmbedWorkflow": "#3a9aa8",
    "WaitForSignal": "#c0608f",
    "Delay": "#c0608f",
}
_OTHER_COLOUR: Final = "#808791"
_ROUND: Final = 8
_BAR: Final = 4  # px: the coloured edge of a box
_BESIDE: Final = 5  # px between an edge and its label
_LABEL_UP: Final = 0.42  # of the first stretch of an edge: where its label stands


def svg(graph: Graph, *, title: str) -> str:
    drawing = lay_out(graph)
    head = _HEAD.format(width=drawing.width, height=drawing.height, title=_text(title))
    return "\n".join([head.rstrip("\n"), *_drawing(drawing), "</svg>"]) + "\n"


def _drawing(drawing: Drawing) -> Iterator[str]:
    for box in drawing.boxes:
        yield from _box(box, entry=box.id == drawing.entry)
    for wire in drawing.wires:
        yield from _wire(wire)


def _box(box: Box, *, entry: bool) -> Iterator[str]:
    kind = box.step.step_type
    colour = _COLOURS.get(kind, _OTHER_COLOUR)
    yield f'<g transform="translate({box.x:.1f} {box.y:.1f})"><title>{_text(f"{kind} {box.id}: {box.title}")}</title>'
    style = "box entry" if entry else "box"
    yield f'<rect class="{style}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{_ROUND}"/>'
    bar = box.height - 2 * _ROUND
    yield f'<rect x="0" y="{_ROUND}" width="{_BAR}" height="{bar:.1f}" fill="{colour}"/>'
    yield f'<text x="{PADDING}" y="{LINE + 2:.0f}">{_text(cut(box.title))}</text>'
    yield f'<text class="kind" x="{PADDING}" y="{2 * LINE + 2:.0f}">{kind}</text>'
    if box.inner is not None:
        x, y, inner = box.inner
        yield f'<g transform="translate({x:.1f} {y:.1f})">'
        yield from _drawing(inner)
        yield "</g>"
    yield "</g>"


def _wire(wire: Wire) -> Iterator[str]:
    failed = wire.edge.label == ON_ERROR
    style = "wire failed" if failed else "wire"
    yield f'<path class="{style}" marker-end="url(#arrow)" d="{_curve(wire.points)}"/>'
    label = wire_label(wire)
    if label:
        (x0, y0), (x1, y1) = wire.points[0], wire.points[1]
        x, y = x0 + (x1 - x0) * _LABEL_UP, y0 + (y1 - y0) * _LABEL_UP
        side, anchor = (_BESIDE, "start") if x1 >= x0 else (-_BESIDE, "end")
        yield f'<text class="label" x="{x + side:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_text(cut(label))}</text>'


def wire_label(wire: Wire) -> str:
    """The edge's label; `if` where a condition decides."""
    parts = [wire.edge.label, "if" if wire.edge.condition is not None else None]
    return " ".join(part for part in parts if part)


def _curve(points: tuple[tuple[float, float], ...]) -> str:
    """Down from point to point, each stretch upright at its ends."""
    (x, y), *rest = points
    path = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(path)


def _text(text: str) -> str:
    """Escaped, without what XML cannot hold."""
    legal = "".join(character if character.isprintable() else " " for character in text)
    return escape(legal, quote=True)
