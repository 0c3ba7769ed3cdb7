"""The validator in detail: what subgraphs, handlers and templates see, and what is known of data."""

from itertools import pairwise
from typing import Any

import pytest

from runtara.dsl.validate import validate
from tests.support.shop_agent import shop_registry

Json = dict[str, Any]
FINISH: Json = {"stepType": "Finish"}
LOG: Json = {"stepType": "Log", "message": "m"}
AGENTS = shop_registry()


def ref(path: str, **more: object) -> Json:
    return {"valueType": "reference", "value": path, **more}


def value(plain: object) -> Json:
    return {"valueType": "immediate", "value": plain}


def log(path: str) -> Json:
    return {**LOG, "context": {"x": ref(path)}}


def order(**inputs: Json) -> Json:
    return {
        "stepType": "Agent",
        "agentId": "shop",
        "capabilityId": "order",
        "inputMapping": {"sku": value("a"), **inputs},
    }


def graph(*edges: str, **steps: Json) -> Json:
    """`a>b` is an edge, `a!b` one for failures, `a>b:true` has a label. Without any, steps follow each other."""
    ids = list(steps)
    plan = []
    for edge in edges or [f"{one}>{other}" for one, other in pairwise(ids)]:
        way, _, label = edge.partition(":")
        failed = "!" in way
        source, target = way.split("!" if failed else ">")
        plan.append({"fromStep": source, "toStep": target, "label": "onError" if failed else label})
    return {"steps": steps, "executionPlan": plan, "entryPoint": ids[0]}


def split(body: Json, of: Json | None = None, **config: object) -> Json:
    return {"stepType": "Split", "subgraph": body, "config": {"value": of or value([{"n": 1}]), **config}}


def loop(body: Json, condition: object = False, **config: object) -> Json:
    return {"stepType": "While", "condition": condition, "subgraph": body, "config": config}


def codes(document: Json) -> list[str]:
    return sorted(problem.code for problem in validate(document, id="w", agents=AGENTS) if problem.code != "W081")


def reading(path: str, **steps: Json) -> list[str]:
    """What is wrong with a path that is read after these steps."""
    return codes(graph(**steps, reads=log(path), end=FINISH))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("item.n", []),
        ("data.n", []),
        ("data", []),
        ("item.x", ["E058"]),
        ("variables._index", []),
        ("variables._item.n", []),
        ("variables._loop", ["E013"]),
        ("variables.passed", []),
        ("variables.outer", ["E053"]),
        ("steps.before.outputs.id", ["E010"]),
        ("steps.inner.outputs.id", []),
        ("workflow.inputs.data", []),
        ("workflow.input", ["E058"]),
        ("loop.index", ["E127"]),
    ],
)
def test_the_body_of_a_split_sees_its_item_and_what_is_passed_on(path: str, expected: list[str]) -> None:
    body = graph(inner=order(), reads=log(path), end=FINISH)
    each = split(body, variables={"passed": ref("steps.before.outputs.id")})
    document = graph(before=order(), each=each, end=FINISH)
    assert codes({**document, "variables": {"outer": 1}}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("loop.index", []),
        ("loop.outputs.anything", []),
        ("loop.count", ["E058"]),
        ("variables._previousOutputs.x", []),
        ("variables._loop.index", []),
        ("variables._item", ["E013"]),
        ("item", ["E127"]),
        ("data.id", []),
        ("data.none", ["E051"]),
    ],
)
def test_the_body_of_a_while_sees_the_loop_and_the_data_around(path: str, expected: list[str]) -> None:
    document = graph(again=loop(graph(reads=log(path), end=FINISH)), end=FINISH)
    assert codes({**document, "inputSchema": {"id": {"type": "string"}}}) == expected


def test_bodies_within_bodies_see_the_nearest_item_and_loop() -> None:
    inmost = graph(reads=log("item.n"), also=log("loop.index"), end=FINISH)
    assert codes(graph(a=loop(graph(each=split(inmost), end=FINISH)), end=FINISH)) == []
    assert codes(graph(a=split(graph(again=loop(inmost), end=FINISH)), end=FINISH)) == []
    assert codes(graph(a=split(graph(b=split(inmost, of=value([1])), end=FINISH)), end=FINISH)) == ["E059", "E127"]


def test_a_loops_condition_and_variables_see_the_loop_and_nothing_else_does() -> None:
    body = graph(end=FINISH)
    assert codes(graph(a=loop(body, ref("loop.index"), variables={"last": ref("loop.outputs")}), end=FINISH)) == []
    assert codes(graph(a=split(body, of=ref("loop.outputs")), end=FINISH)) == ["E127"]
    kept = {"stepType": "Filter", "config": {"value": ref("item"), "condition": ref("item")}}
    assert codes(graph(a=kept, end=FINISH)) == ["E127"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("variables._signal_id", []),
        ("variables.outer", []),
        ("steps.before.outputs.id", []),
        ("steps.first.outputs", []),
        ("steps.after.outputs", ["E012"]),
        ("steps.ask.outputs", ["E012"]),
        ("steps.nobody.outputs", ["E010"]),
    ],
)
def test_what_runs_before_a_wait_sees_all_that_the_wait_sees(path: str, expected: list[str]) -> None:
    ask = {"stepType": "WaitForSignal", "onWait": graph(first=LOG, reads=log(path), end=FINISH)}
    document = graph(before=order(), ask=ask, after=LOG, end=FINISH)
    assert codes({**document, "variables": {"outer": 1}}) == expected


def test_a_wait_within_what_runs_before_a_wait_sees_all_around() -> None:
    inner = {"stepType": "WaitForSignal", "onWait": graph(reads=log("steps.before.outputs.id"), end=FINISH)}
    ask = {"stepType": "WaitForSignal", "onWait": graph(inner=inner, end=FINISH)}
    assert codes(graph(before=order(), ask=ask, end=FINISH)) == []


@pytest.mark.parametrize("root", ["steps.__error", "error"])
def test_a_failure_is_seen_where_it_leads_and_nowhere_else(root: str) -> None:
    handled = ("a>end", "a!handler", "handler>end")
    assert codes(graph(*handled, a=order(), handler=log(f"{root}.attributes.sku"), end=FINISH)) == []
    assert codes(graph(*handled, a=order(), handler=log(f"{root}.cod"), end=FINISH)) == ["E058"]
    assert codes(graph(a=order(), reads=log(f"{root}.code"), end=FINISH)) == ["E127"]


def test_a_failed_step_has_no_outputs_for_its_handler() -> None:
    handled = ("a>end", "a!handler", "handler>end")
    assert codes(graph(*handled, a=order(), handler=log("steps.a.outputs.id"), end=FINISH)) == ["E012"]
    finish = {"stepType": "Finish", "inputMapping": {"x": ref("steps.a.outputs.id")}}
    assert codes(graph(*handled, a=order(), handler=LOG, end=finish)) == []


def test_an_edge_for_failures_may_look_at_the_failure() -> None:
    document = graph("a>end", "a!handler", "handler>end", a=order(), handler=LOG, end=FINISH)
    document["executionPlan"][1]["condition"] = ref("steps.__error.category")
    assert codes(document) == []
    document["executionPlan"][1]["condition"] = ref("steps.a.outputs.id")
    assert codes(document) == ["E012"]
    document = graph("a>b", "a>end", "b>end", a=order(), b=LOG, end=FINISH)
    document["executionPlan"][0]["condition"] = ref("steps.a.outputs.id")
    assert codes(document) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("steps.each.outputs[0].total", []),
        ("steps.each.outputs.0.total", []),
        ("steps.each.outputs.total", ["E059"]),
        ("steps.each.outputs[0].none", ["E058"]),
        ("steps.each.result", ["E058"]),
        ("steps.each.stepName", []),
        ("steps[0]", ["E011"]),
        ("steps", ["E011"]),
    ],
)
def test_what_a_split_gives_is_known_from_its_finish(path: str, expected: list[str]) -> None:
    body = graph(a=order(), end={"stepType": "Finish", "inputMapping": {"total": ref("steps.a.outputs.total")}})
    assert reading(path, each=split(body)) == expected


def test_what_other_engines_documents_read_beside_the_outputs_is_there() -> None:
    cases = [{"matchType": "EQ", "match": 1, "output": {"x": 1}, "route": "one"}]
    switch = {"stepType": "Switch", "config": {"value": value(1), "cases": cases}}
    plain = {"stepType": "Switch", "config": {"value": value(1), "cases": [{**cases[0], "route": None}]}}
    ways = ("s>a:one", "s>a:default", "a>end")
    assert codes(graph(*ways, s=switch, a=log("steps.s.route"), end=FINISH)) == []
    assert reading("steps.s.route", s=plain) == ["E058"]
    assert reading("steps.each.stats.total", each=split(graph(end=FINISH), dontStopOnFailed=True)) == []
    assert reading("steps.each.hasFailures", each=split(graph(end=FINISH))) == ["E058"]


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("_instance_id", "variables._instance_id"),
        ("__error.code", "steps.__error"),
        ("order.id", "steps.order.outputs"),
        ("rate", "variables.rate"),
        ("varibles.rate", "variables"),
    ],
)
def test_a_path_without_its_root_gets_a_suggestion(path: str, suggestion: str) -> None:
    document = {**graph(order=order(), a=log(path), end=FINISH), "variables": {"rate": 1}}
    (problem,) = validate(document, id="w", agents=AGENTS)
    assert (problem.code, problem.suggestion) == ("E126", suggestion)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("data.success[0].total", []), ("hasFailures", []), ("data.failed", ["E058"]), ("[0]", ["E059"])],
)
def test_a_split_that_goes_on_tells_which_failed(path: str, expected: list[str]) -> None:
    body = graph(a=order(), end={"stepType": "Finish", "inputMapping": {"total": ref("steps.a.outputs.total")}})
    dot = "" if path.startswith("[") else "."
    assert reading(f"steps.each.outputs{dot}{path}", each=split(body, dontStopOnFailed=True)) == expected


@pytest.mark.parametrize(
    ("step", "path", "expected"),
    [
        ({"stepType": "Conditional", "condition": True}, "result", []),
        ({"stepType": "Filter", "config": {"value": value([{"n": 1}]), "condition": True}}, "items[0].n", []),
        ({"stepType": "Filter", "config": {"value": value([{"n": 1}]), "condition": True}}, "items[0].m", ["E058"]),
        ({"stepType": "Filter", "config": {"value": value([1]), "condition": True}}, "length", ["E058"]),
        ({"stepType": "GroupBy", "config": {"value": value([1]), "key": "x"}}, "groups.a[0]", []),
        ({"stepType": "GroupBy", "config": {"value": value([1]), "key": "x"}}, "totalGroups", ["E058"]),
        (loop(graph(end={"stepType": "Finish", "inputMapping": {"a.b": value(1)}})), "outputs.a.b", []),
        (loop(graph(end={"stepType": "Finish", "inputMapping": {"a.b": value(1)}})), "outputs.a.c", ["E058"]),
        (loop(graph(end={"stepType": "Finish", "inputMapping": {"a.b": value(1)}})), "outputs.a.b.c", ["E059"]),
        ({"stepType": "WaitForSignal", "responseSchema": {"ok": {"type": "boolean"}}}, "ok.x", ["E059"]),
        ({"stepType": "WaitForSignal", "responseSchema": {"ok": {"type": "boolean"}}}, "other", []),
        (order(), "lines[0].sku", []),
        (order(), "lines[-1].skus", ["E058"]),
    ],
)
def test_what_steps_give_is_known(step: Json, path: str, expected: list[str]) -> None:
    document = graph("a>reads", "reads>end", a=step, reads=log(f"steps.a.outputs.{path}"), end=FINISH)
    if step["stepType"] == "Conditional":
        document["executionPlan"] = [
            {"fromStep": "a", "toStep": "reads", "label": "true"},
            {"fromStep": "a", "toStep": "end", "label": "false"},
            {"fromStep": "reads", "toStep": "end"},
        ]
    assert codes(document) == expected


def test_a_step_that_reads_itself_over_a_detour_does_not_hang_the_checks() -> None:
    body = graph(end={"stepType": "Finish", "inputMapping": {"x": value(1)}})
    first = split(body, of=ref("steps.second.outputs"))
    second = split(body, of=ref("steps.first.outputs"))
    assert codes(graph(first=first, second=second, end=FINISH)) == ["E012"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ steps.a.outputs.id | upper }} {{ data.x.y }}", []),
        ("{{ steps.b.outputs.id }}", ["E010"]),
        ("{{ steps['a'].outputs.totl }}", ["E058"]),
        ("{{ steps.a.outputs.id.upper() }}", []),
        ("{% for line in steps.a.outputs.lines %}{{ line.anything }} {{ loop.index }}{% endfor %}", []),
        ("{% set x = data.y %}{{ x }} {{ range(3) }}", []),
        ("{{ dta }}", ["E126"]),
        ("{{ variables.none }}", ["E053"]),
        ("{{ data[variables._instance_id] }}", ["W052"]),
        ("{{ variables[data.none.x].y }}", ["W052"]),
        ("{{ data.x", ["E208"]),
        ("{{ data.x | nofilter }}", ["E208"]),
        ("no braces at all", []),
    ],
)
def test_templates_are_checked_as_far_as_they_say_what_they_read(text: str, expected: list[str]) -> None:
    finish = {"stepType": "Finish", "inputMapping": {"x": {"valueType": "template", "value": text}}}
    assert codes(graph(a=order(), end=finish)) == expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"amount": value("12")}, []),
        ({"amount": value(1.5)}, ["E023"]),
        ({"sku": value(True)}, []),
        ({"sku": value(None)}, ["E022"]),
        ({"sku": value(["a"])}, ["E023"]),
        ({"note": value(None)}, []),
        ({"size": value("huge")}, ["E024"]),
        ({"sku": {"valueType": "composite", "value": [value("a")]}}, ["E023"]),
        ({"sku": ref("data.sku", type="integer", default="many")}, ["E023"]),
        ({"amount.x": value(1)}, []),
        ({"sku[0]": value(1)}, ["E011"]),
    ],
)
def test_written_inputs_go_through_the_capabilitys_own_model(inputs: Json, expected: list[str]) -> None:
    assert codes(graph(a=order(**inputs), end=FINISH)) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"stepType": "Delay", "durationMs": -1}, ["E023"]),
        ({"stepType": "Delay", "durationMs": "1000"}, []),
        ({"stepType": "Delay", "durationMs": {"valueType": "immediate", "value": "soon"}}, ["E023"]),
        (split(graph(end=FINISH), of=value(None)), ["E023"]),
        (split(graph(end=FINISH), of=value(None), allowNull=True), []),
        (split(graph(end=FINISH), of=value(3)), ["E023"]),
        (split(graph(end=FINISH), of=value(3), convertSingleValue=True), []),
        (split(graph(end=FINISH), sequential=True, parallelism=4), ["W200"]),
        (split(graph(end=FINISH), variables={"_x": value(1)}), ["E203"]),
        (split({"steps": {}}), ["E004"]),
        ({"stepType": "GroupBy", "config": {"value": value([]), "key": "a..b"}}, ["E011"]),
        ({"stepType": "EmbedWorkflow", "childWorkflowId": "a child"}, ["E203"]),
        ({"stepType": "WaitForSignal", "responseSchema": {"x": {"type": "string", "pattern": "("}}}, ["E203"]),
        ({"stepType": "WaitForSignal", "responseSchema": {"x": {"type": "integer", "pattern": "1"}}}, ["W200"]),
        ({"stepType": "WaitForSignal", "responseSchema": {"x": {"type": "integer", "default": "1"}}}, ["E023"]),
        (
            {"stepType": "WaitForSignal", "responseSchema": {"x": {"type": "integer", "enum": [1], "default": 2}}},
            ["E024"],
        ),
    ],
)
def test_written_values_have_to_make_sense(step: Json, expected: list[str]) -> None:
    assert codes(graph(a=step, end=FINISH)) == expected


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"matchType": "BETWEEN", "match": [1, 2]}, []),
        ({"matchType": "BETWEEN", "match": [1]}, ["E025"]),
        ({"matchType": "BETWEEN", "match": [1, None]}, ["E025"]),
        ({"matchType": "RANGE", "match": {"gte": 1, "lt": "b"}}, []),
        ({"matchType": "RANGE", "match": {}}, ["E025"]),
        ({"matchType": "RANGE", "match": {"above": 1}}, ["E025"]),
        ({"matchType": "IN", "match": "abc"}, ["E025"]),
        ({"matchType": "AND", "match": [1]}, ["E027"]),
        ({"matchType": "SIMILARITY_GTE", "match": 1}, ["E027"]),
        ({"matchType": "EQ", "match": [1, 2]}, []),
    ],
)
def test_the_match_of_a_case_fits_its_kind(case: Json, expected: list[str]) -> None:
    step = {"stepType": "Switch", "config": {"value": value(1), "cases": [{**case, "output": ref("data.x")}]}}
    assert codes(graph(a=step, end=FINISH)) == expected


def test_a_switch_that_routes_goes_on_by_its_routes_and_default() -> None:
    cases = [{"matchType": "EQ", "match": 1, "output": "one", "route": "one"}]
    switch = {"stepType": "Switch", "config": {"value": value(1), "cases": cases}}
    assert codes(graph("s>a:one", "s>b:default", s=switch, a=FINISH, b=FINISH)) == []
    assert codes(graph("s>a:one", s=switch, a=FINISH)) == ["W003"]
    assert codes(graph("s>a:one", "s>b", s=switch, a=FINISH, b=FINISH)) == ["E206", "W003"]
    assert codes(graph("s>a:on", "s>b:default", s=switch, a=FINISH, b=FINISH)) == ["E206", "W003"]


def test_only_steps_that_can_fail_have_a_way_for_failures() -> None:
    assert codes(graph("a>end", "a!end", a=LOG, end=FINISH)) == ["E206"]
    assert codes(graph("a>end", "a!h", "h>end", a={"stepType": "Delay", "durationMs": 1}, h=LOG, end=FINISH)) == []
    assert codes(graph("a>b", "b>end", a=LOG, b=FINISH, end=FINISH)) == ["E206"]


def test_a_dead_end_within_parallel_branches_is_no_merge() -> None:
    check = {"stepType": "Conditional", "condition": True}
    assert codes(graph("a>b", "a>c", "b>d:true", "c>d", a=LOG, b=check, c=LOG, d=FINISH)) == ["E073", "W003"]
    failing = {"stepType": "Error", "code": "X", "message": "m"}
    edges = ("a>b", "a>c", "b>d:true", "b>x:false", "c>d")
    assert codes(graph(*edges, a=LOG, b=check, c=LOG, d=FINISH, x=failing)) == []


def test_a_priority_without_a_condition_has_no_effect() -> None:
    document = graph(a=LOG, end=FINISH)
    document["executionPlan"][0]["priority"] = 3
    assert codes(document) == ["W200"]


def test_ids_that_cannot_be_ids_are_told() -> None:
    assert [problem.code for problem in validate(graph(end=FINISH), id="my flow")] == ["E203"]
    deep: Json = graph(end=FINISH)
    for _ in range(9):
        deep = graph(**{"x" * 120: loop(deep), "end": FINISH})
    assert "E203" in codes(deep)


def test_what_cannot_be_read_is_not_held_against_the_rest() -> None:
    """A lost step is there for edges and references; an edge that is lost makes nothing unreachable."""
    broken = {"stepType": "Agnt"}
    assert codes(graph(a=broken, reads=log("steps.a.outputs.x"), end=FINISH)) == ["E204"]
    document = graph(a=LOG, b=LOG, end=FINISH)
    del document["executionPlan"][0]["toStep"]
    assert codes(document) == ["E202"]
    document = graph(a={**order(), "maxRetries": "x", "inputMapping": {}}, end=FINISH)
    assert codes(document) == ["E203"]


def test_two_embedded_workflows_are_told_apart_in_all_subgraphs() -> None:
    child = {"stepType": "EmbedWorkflow", "childWorkflowId": "c"}
    document = graph(each=split(graph(x=child, end=FINISH)), again=loop(graph(x=child, end=FINISH)), end=FINISH)
    assert codes(document) == ["E125", "W082", "W082"]
