"""The structure of graphs: order, what ran before what, and where branches come together."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtara.dsl.model import Graph
from runtara.dsl.order import Order
from runtara.dsl.parse import parse

LOG = {"stepType": "Log", "message": "m"}
FINISH = {"stepType": "Finish"}
ERROR = {"stepType": "Error", "code": "X", "message": "m"}
CONDITION = {"stepType": "Conditional", "condition": True}


def order(text: str, **steps: dict[str, Any]) -> Order:
    """`a>b b!c`: an edge from a to b, one from b to c by error; `a>b:true` has a label. Steps are Logs unless given."""
    edges = []
    for part in text.split():
        way, _, label = part.partition(":")
        for sign in ">!":
            if sign in way:
                source, target = way.split(sign)
                edges.append({"fromStep": source, "toStep": target, "label": "onError" if sign == "!" else label})
    ids = dict.fromkeys(end for edge in edges for end in (edge["fromStep"], edge["toStep"]))
    graph = parse(
        {"steps": {id: steps.get(id, LOG) for id in ids}, "executionPlan": edges, "entryPoint": "a"}, id="w"
    ).graph
    assert graph is not None
    return Order(graph)


def test_a_diamond_runs_its_merge_last_and_once() -> None:
    diamond = order("a>b a>c b>d c>d d>e")
    assert diamond.order == ("a", "b", "c", "d", "e")
    assert (diamond.fan_out("a"), diamond.merge("a"), diamond.merge("b")) == (("b", "c"), "d", "d")
    assert diamond.merge("e") is None


def test_a_long_branch_does_not_let_the_merge_run_early() -> None:
    """A breadth-first walk would take d before c2."""
    uneven = order("a>b a>c c>c1 c1>c2 c2>d b>d")
    assert uneven.order.index("d") == len(uneven.order) - 1
    assert uneven.merge("a") == "d"


def test_branches_that_end_apart_have_no_merge() -> None:
    assert order("a>b a>c", b=FINISH, c=FINISH).merge("a") is None


def test_a_way_that_fails_does_not_keep_branches_from_meeting() -> None:
    graph = order("a>b a>c b>x:false b>d:true c>d", b=CONDITION, x=ERROR)
    assert graph.merge("a") == "d"
    assert graph.fails_only == {"x"}


def test_an_error_handler_is_a_way_like_others_for_a_merge() -> None:
    assert order("a>b a>c b!h h>d b>d c>d").merge("a") == "d"
    assert order("a>b a>c b!h b>d c>d", h=FINISH).merge("a") is None


def test_what_failed_has_not_completed_before_its_handler() -> None:
    graph = order("a>b b!h b>c h>d c>d")
    assert graph.completed_before("a", "h")
    assert not graph.completed_before("b", "h")
    assert graph.runs_before("b", "h")
    assert graph.completed_before("b", "d")
    assert not graph.runs_before("c", "h")
    assert graph.handling == {"h", "d"}


def test_parallel_branches_have_not_run_before_each_other() -> None:
    graph = order("a>b a>c b>d c>d")
    assert not graph.runs_before("b", "c")
    assert graph.runs_before("b", "d")


def test_edges_are_tried_by_priority_and_the_one_without_condition_last() -> None:
    edges = [
        {"fromStep": "a", "toStep": "d"},
        {"fromStep": "a", "toStep": "b", "condition": True, "priority": 1},
        {"fromStep": "a", "toStep": "c", "condition": True, "priority": 5},
    ]
    graph = parse({"steps": dict.fromkeys("abcd", LOG), "executionPlan": edges}, id="w").graph
    assert graph is not None
    ordered = Order(graph)
    assert [edge.to_step for edge in ordered.normal("a")] == ["c", "b", "d"]
    assert ordered.fan_out("a") == ()


def test_a_circle_is_named() -> None:
    circle = order("a>b b>c c>b c>d")
    assert circle.cycle is not None
    assert set(circle.cycle) == {"b", "c"}
    assert order("a>a").cycle == ("a", "a")
    assert order("a>b a>b").cycle is None


def test_two_thousand_steps_in_a_row_are_ordered_without_recursion() -> None:
    graph = order(" ".join(f"{'a' if n == 0 else n}>{n + 1}" for n in range(2_000)))
    assert graph.merge("a") == "1"
    assert graph.completed_before("a", "2000")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 8))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    names = draw(st.permutations(range(count)))
    graph = parse(
        {
            "steps": {f"s{name}": LOG for name in names},
            "executionPlan": [{"fromStep": f"s{a}", "toStep": f"s{b}"} for a, b in edges],
            "entryPoint": "s0",
        },
        id="w",
    ).graph
    assert graph is not None
    return graph


def ways(order: Order, id: str) -> list[list[str]]:
    return [[id, *way] for target in order.successors(id) for way in ways(order, target)] or [[id]]


@given(graphs())
def test_order_and_merges_hold_for_any_graph(graph: Graph) -> None:
    found = Order(graph)
    assert found.cycle is None
    assert sorted(found.order) == sorted(graph.steps)
    for edge in graph.execution_plan:
        assert found.order.index(edge.from_step) < found.order.index(edge.to_step)
    for id in graph.steps:
        common = set.intersection(*(set(way[1:]) for way in ways(found, id)))
        assert found.merge(id) == next((step for step in found.order if step in common), None)
        for other in graph.steps:
            assert found.runs_before(id, other) == (other != id and other in found.reached_from(id))
