"""Drawings of graphs: nothing overlaps, everything is there, and no name can become markup."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, given, settings

from runtara.dsl.graph import mermaid, svg
from runtara.dsl.graph_layout import Drawing, lay_out
from runtara.dsl.model import Graph
from runtara.dsl.parse import parse
from tests.support.documents import workflows

EVIL = '"]-->x; <script>alert(1)</script> & `x` \u202e\n end'
SVG = "{http://www.w3.org/2000/svg}"


def graph_of(document: dict[str, Any]) -> Graph:
    graph = parse(document, id="w").graph
    assert graph is not None
    return graph


APPROVAL = graph_of(
    {
        "entryPoint": "ask",
        "steps": {
            "ask": {"stepType": "WaitForSignal", "name": "Wait for approval"},
            "ok": {"stepType": "Conditional", "condition": {"valueType": "reference", "value": "steps.ask.outputs.ok"}},
            "each": {
                "stepType": "Split",
                "config": {"value": {"valueType": "immediate", "value": [1]}},
                "subgraph": {"steps": {"end": {"stepType": "Finish"}}},
            },
            "end": {"stepType": "Finish"},
            "no": {"stepType": "Error", "code": "NO", "message": "no"},
        },
        "executionPlan": [
            {"fromStep": "ask", "toStep": "ok"},
            {"fromStep": "ask", "toStep": "no", "label": "onError"},
            {"fromStep": "ok", "toStep": "each", "label": "true"},
            {"fromStep": "ok", "toStep": "no", "label": "false"},
            {"fromStep": "each", "toStep": "end"},
        ],
    }
)


def test_mermaid_has_the_steps_and_the_ways_between_them() -> None:
    assert mermaid(APPROVAL).splitlines() == [
        "flowchart TD",
        '    n0("Wait for approval<br/><small>WaitForSignal</small>")',
        '    n1{"ok<br/><small>Conditional</small>"}',
        '    subgraph n2["each<br/><small>Split</small>"]',
        "        direction TB",
        '        n5(["end<br/><small>Finish</small>"])',
        "    end",
        '    n3(["end<br/><small>Finish</small>"])',
        '    n4[["no<br/><small>Error</small>"]]',
        "    n0 --> n1",
        '    n0 -.->|"onError"| n4',
        '    n1 -->|"true"| n2',
        '    n1 -->|"false"| n4',
        "    n2 --> n3",
    ]


def test_no_name_can_become_markup() -> None:
    log = {"stepType": "Log", "message": "m", "name": EVIL}
    graph = graph_of({"steps": {"a<b>&": log, "end": {"stepType": "Finish"}}})
    assert not re.search(r"script>|`|-->x", mermaid(graph))
    drawn = svg(graph, title=EVIL)
    assert "<script" not in drawn
    root = ElementTree.fromstring(drawn)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "style", "defs", "marker", "path", "g", "rect", "text",
    }  # fmt: skip


def test_the_drawing_is_one_file_that_needs_nothing_else() -> None:
    drawn = svg(APPROVAL, title="Approval")
    assert re.findall(r"(?:href|src|url)\b[^\s>]*", drawn) == ['url(#arrow)"'] * drawn.count("url(#arrow)")
    assert "prefers-color-scheme: dark" in drawn
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"Wait for approval", "WaitForSignal", "true", "false", "onError", "each", "no"} <= set(texts)


def test_a_circle_of_edges_is_drawn_too() -> None:
    log = {"stepType": "Log", "message": "m"}
    edges = [{"fromStep": "a", "toStep": "b"}, {"fromStep": "b", "toStep": "a"}, {"fromStep": "a", "toStep": "a"}]
    drawing = lay_out(graph_of({"steps": {"a": log, "b": log}, "executionPlan": edges}))
    assert len(drawing.wires) == 3
    ElementTree.fromstring(svg(graph_of({"steps": {}}), title="empty"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workflows())
def test_no_two_boxes_overlap_and_all_lie_within_the_drawing(document: dict[str, Any]) -> None:
    graph = graph_of(document)
    _check(lay_out(graph), graph)
    ElementTree.fromstring(svg(graph, title="w"))


def _check(drawing: Drawing, graph: Graph) -> None:
    assert {box.id for box in drawing.boxes} == set(graph.steps)
    assert len(drawing.wires) == len(graph.execution_plan)
    for box in drawing.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= drawing.width + 0.01
        assert box.y + box.height <= drawing.height + 0.01
        if box.inner is not None:
            x, y, inner = box.inner
            assert x >= 0
            assert x + inner.width <= box.width + 0.01
            assert y + inner.height <= box.height + 0.01
    for left, right in combinations(drawing.boxes, 2):
        apart_x = left.x + left.width <= right.x or right.x + right.width <= left.x
        apart_y = left.y + left.height <= right.y or right.y + right.height <= left.y
        assert apart_x or apart_y
    for wire in drawing.wires:
        downwards = [y for _, y in wire.points]
        assert downwards == sorted(downwards)
