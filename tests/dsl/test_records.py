"""What is read under `steps.<id>` besides outputs: validator and run time agree on it."""

from typing import Any

import pytest

from tests.dsl.running import result_of

Json = dict[str, Any]


def ref(path: str) -> Json:
    return {"valueType": "reference", "value": path}


def finish(**paths: str) -> Json:
    return {"stepType": "Finish", "inputMapping": {name: ref(path) for name, path in paths.items()}}


@pytest.mark.parametrize(("n", "route"), [(1, "one"), (2, "default")])
async def test_the_route_of_a_switch_stands_beside_its_outputs(n: int, route: str) -> None:
    cases = [{"matchType": "EQ", "match": 1, "output": {"x": 1}, "route": "one"}]
    switch = {"stepType": "Switch", "config": {"value": ref("data.n"), "cases": cases, "default": {"x": 2}}}
    document = {
        "steps": {"s": switch, "end": finish(route="steps.s.route", x="steps.s.outputs.x", type="steps.s.stepType")},
        "executionPlan": [
            {"fromStep": "s", "toStep": "end", "label": "one"},
            {"fromStep": "s", "toStep": "end", "label": "default"},
        ],
    }
    assert await result_of(document, {"n": n}) == {"route": route, "x": n, "type": "Switch"}


async def test_an_output_that_is_no_object_stays_as_it_is_beside_its_route() -> None:
    cases = [{"matchType": "EQ", "match": 1, "output": "one", "route": "one"}]
    switch = {"stepType": "Switch", "config": {"value": ref("data.n"), "cases": cases, "default": "other"}}
    document = {
        "steps": {"s": switch, "end": finish(route="steps.s.route", says="steps.s.outputs")},
        "executionPlan": [
            {"fromStep": "s", "toStep": "end", "label": "one"},
            {"fromStep": "s", "toStep": "end", "label": "default"},
        ],
    }
    assert await result_of(document, {"n": 1}) == {"route": "one", "says": "one"}
    assert await result_of(document, {"n": 2}) == {"route": "default", "says": "other"}


async def test_what_a_split_tells_of_failures_stands_beside_its_outputs() -> None:
    body = {"steps": {"no": {"stepType": "Error", "code": "NO", "message": "no"}}}
    config = {"value": {"valueType": "immediate", "value": [1, 2]}, "dontStopOnFailed": True}
    each = {"stepType": "Split", "config": config, "subgraph": body}
    end = finish(failed="steps.each.hasFailures", total="steps.each.stats.total", also="steps.each.outputs.hasFailures")
    document = {"steps": {"each": each, "end": end}, "executionPlan": [{"fromStep": "each", "toStep": "end"}]}
    assert await result_of(document) == {"failed": True, "total": 2, "also": True}
