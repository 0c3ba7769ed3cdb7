"""A graph for people: as Mermaid text, or as an SVG drawing (`svg`).

Invariant: what comes from the document is escaped, so that no name can become markup or another node.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

from .graph_svg import svg
from .model import ON_ERROR, Edge, Graph, Step
from .walk import subgraphs

__all__ = ["mermaid", "svg"]

_SHAPES: Final = {
    "Finish": ("([", "])"),
    "Error": ("[[", "]]"),
    "Conditional": ("{", "}"),
    "Switch": ("{", "}"),
    "Delay": ("(", ")"),
    "WaitForSignal": ("(", ")"),
}
_BOX: Final = ("[", "]")
_INDENT: Final = "    "


def mermaid(graph: Graph) -> str:
    """A flowchart, as Mermaid and the sites that render it read it."""
    return "\n".join(["flowchart TD", *_lines(graph, _INDENT, count())]) + "\n"


def _lines(graph: Graph, indent: str, numbers: "count[int]") -> Iterator[str]:
    names = {id: f"n{next(numbers)}" for id in graph.steps}
    for id, step in graph.steps.items():
        nested = [inner for inner, _ in subgraphs(step)]
        if nested:
            yield f'{indent}subgraph {names[id]}["{_label(step)}"]'
            yield f"{indent}{_INDENT}direction TB"
            yield from _lines(nested[0], indent + _INDENT, numbers)
            yield f"{indent}end"
        else:
            left, right = _SHAPES.get(step.step_type, _BOX)
            yield f'{indent}{names[id]}{left}"{_label(step)}"{right}'
    for edge in graph.execution_plan:
        if edge.from_step in names and edge.to_step in names:
            yield f"{indent}{names[edge.from_step]} {_arrow(edge)} {names[edge.to_step]}"


def _label(step: Step) -> str:
    return f"{_escaped(step.title)}<br/><small>{step.step_type}</small>"


def _arrow(edge: Edge) -> str:
    parts = [edge.label, "if" if edge.condition is not None else None]
    label = " ".join(part for part in parts if part)
    arrow = "-.->" if edge.label == ON_ERROR else "-->"
    return f'{arrow}|"{_escaped(label)}"|' if label else arrow


def _escaped(text: str) -> str:
    """Letters, digits and spaces as they are, all else by its number: Mermaid's syntax is in flux."""
    return "".join(
        character if character.isalnum() or character == " " else f"#{ord(character)};"
        for character in (character if character.isprintable() else " " for character in text)
    )
