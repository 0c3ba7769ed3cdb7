"""Reading a document: every problem of its shape at once, and both generations' spellings."""

import json
from typing import Any

import pytest

from runtara.dsl.model import EmbedWorkflowStep, Graph, Reference, SplitStep, SwitchStep, WhileStep
from runtara.dsl.parse import MAX_NESTING, Parsed, parse, read

FINISH: dict[str, Any] = {"stepType": "Finish"}


def reference(path: str) -> dict[str, Any]:
    return {"valueType": "reference", "value": path}


def found(document: object) -> list[tuple[str, str]]:
    return [(problem.code, problem.pointer) for problem in parse(document, id="w").problems]


def graph_of(document: object) -> Graph:
    parsed = parse(document, id="w")
    assert parsed.problems == ()
    assert parsed.graph is not None
    return parsed.graph


def test_a_graph_alone_and_one_in_an_envelope_are_the_same() -> None:
    graph = {"name": "orders", "steps": {"end": FINISH}}
    assert graph_of(graph) == graph_of({"executionGraph": graph})


def test_options_of_the_envelope_count_where_the_graph_has_none() -> None:
    graph = graph_of({"executionGraph": {"steps": {"end": FINISH}}, "durable": False, "debugMode": True, "name": "n"})
    assert (graph.durable, graph.track_events, graph.name) == (False, True, "n")
    graph = graph_of({"executionGraph": {"steps": {"end": FINISH}, "durable": True}, "durable": False})
    assert graph.durable


def test_the_first_generations_spellings_are_read() -> None:
    graph = graph_of(
        {
            "debugMode": True,
            "steps": {"a": {"stepType": "StartScenario", "childScenarioId": "child", "childVersion": "3"}},
        }
    )
    step = graph.steps["a"]
    assert isinstance(step, EmbedWorkflowStep)
    assert (step.child_workflow_id, step.child_version, graph.track_events) == ("child", 3, True)


def test_a_field_in_both_spellings_is_refused() -> None:
    document = {"steps": {"a": {"stepType": "EmbedWorkflow", "childScenarioId": "a", "childWorkflowId": "b"}}}
    assert found(document) == [("E201", "/steps/a/childScenarioId")]


def test_the_entry_point_may_be_left_out_where_one_step_has_no_way_in() -> None:
    edges = [{"fromStep": "a", "toStep": "b"}]
    assert graph_of({"steps": {"b": FINISH, "a": FINISH}, "executionPlan": edges}).entry_point == "a"
    assert graph_of({"steps": {"b": FINISH, "a": FINISH}}).entry_point == ""


def test_null_is_absent_where_it_says_nothing_and_kept_where_it_does() -> None:
    case = {"matchType": "EQ", "match": None, "output": None, "route": None}
    graph = graph_of(
        {
            "name": None,
            "steps": {
                "e": {"stepType": "Finish", "id": None},
                "s": {"stepType": "Switch", "name": None, "config": {"value": reference("data.x"), "cases": [case]}},
            },
        }
    )
    step = graph.steps["s"]
    assert isinstance(step, SwitchStep)
    assert (step.config.cases[0].match, step.config.cases[0].route) == (None, None)


def test_a_default_of_null_is_a_default() -> None:
    with_default = {"valueType": "reference", "value": "data.x", "default": None}
    finish = {"stepType": "Finish", "inputMapping": {"a": with_default, "b": reference("data.x")}}
    graph = graph_of({"steps": {"end": finish}})
    mapping = graph.steps["end"].input_mapping  # type: ignore[union-attr]
    assert isinstance(mapping["a"], Reference)
    assert isinstance(mapping["b"], Reference)
    assert (mapping["a"].has_default, mapping["b"].has_default) == (True, False)


def test_a_json_schema_object_is_read_as_fields() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string", "minLength": 1},
            "note": {"type": ["string", "null"], "title": "Note"},
            "customer": {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}},
        },
    }
    fields = graph_of({"steps": {"end": FINISH}, "inputSchema": schema}).input_schema
    assert (fields["id"].required, fields["id"].min, fields["note"].nullable) == (True, 1, True)
    customer = fields["customer"].properties
    assert customer is not None
    assert customer["age"].max == 150
    schema["properties"]["id"]["anyOf"] = []  # type: ignore[index]
    assert found({"steps": {"end": FINISH}, "inputSchema": schema}) == [("E201", "/inputSchema/properties/id/anyOf")]


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "object", "not": {"type": "string"}}, "E201"),
        ({"type": "object", "oneOf": []}, "E201"),
        ({"type": "array"}, "E203"),
        ({"type": "object", "properties": []}, "E203"),
        ({"type": "object", "additionalProperties": False}, "W200"),
    ],
)
def test_what_a_json_schema_demands_beyond_its_fields_is_told(schema: dict[str, Any], code: str) -> None:
    assert [code for code, _ in found({"steps": {"end": FINISH}, "inputSchema": schema})] == [code]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"stepType": "Log"}, "'message' is missing"),
        ({"stepType": "Log", "message": 3}, "'message' should be a text, not 3"),
        ({"stepType": "Log", "message": "m", "breakpoint": "no"}, "'breakpoint' should be true or false, not 'no'"),
        ({"stepType": "Finish", "inputMapping": [1]}, "'inputMapping' should be an object, not [1]"),
        ({"stepType": "Split", "config": 3, "subgraph": {"steps": {}}}, "'config' should be an object, not 3"),
        ({"stepType": "Conditional"}, "'condition' is missing"),
        ({"stepType": "Error", "code": "", "message": "m"}, "'code' should have a character at least, not ''"),
        ({"stepType": "Conditional", "condition": {"op": "AND", "arguments": [[1]]}}, "element 0 of 'arguments' is no"),
    ],
)
def test_messages_are_in_the_words_of_the_language(step: dict[str, Any], message: str) -> None:
    (problem,) = parse({"steps": {"a": step}}, id="w").problems
    assert problem.message.startswith(message)


def test_a_map_of_fields_may_have_one_that_is_called_type() -> None:
    fields = graph_of({"steps": {"end": FINISH}, "inputSchema": {"type": {"type": "string"}}}).input_schema
    assert list(fields) == ["type"]


def test_a_variable_is_typed_or_a_plain_value() -> None:
    variables = {"a": {"type": "integer", "value": 3}, "b": 3, "c": {"type": "express"}, "d": {"value": None}, "e": [1]}
    graph = graph_of({"steps": {"end": FINISH}, "variables": variables})
    assert [variable.value for variable in graph.variables.values()] == [3, 3, {"type": "express"}, None, [1]]


def test_plain_conditions_and_wrapped_ones_are_read() -> None:
    graph = graph_of(
        {
            "steps": {
                "w": {
                    "stepType": "While",
                    "condition": {"type": "value", "valueType": "reference", "value": "data.x"},
                    "subgraph": {"steps": {"end": FINISH}},
                },
                "v": {"stepType": "While", "condition": None, "subgraph": {"steps": {"end": FINISH}}},
            }
        }
    )
    first, second = graph.steps["w"], graph.steps["v"]
    assert isinstance(first, WhileStep)
    assert isinstance(second, WhileStep)
    assert isinstance(first.condition, Reference)
    assert second.condition.value is None  # type: ignore[union-attr]


def test_a_subgraph_is_a_graph_with_problems_of_its_own() -> None:
    inner = {"steps": {"a": {"stepType": "Delay"}, "b": FINISH}, "trackEvents": True}
    split = {"stepType": "Split", "config": {"value": reference("data.items")}, "subgraph": inner}
    problems = parse({"steps": {"each": split}}, id="w").problems
    assert [(p.code, p.pointer, p.step) for p in problems] == [
        ("W200", "/steps/each/subgraph/trackEvents", "each"),
        ("E202", "/steps/each/subgraph/steps/a/durationMs", "each/a"),
    ]
    reading = read({"steps": {"each": split}}, id="w")
    assert reading.graph is not None
    each = reading.graph.steps["each"]
    assert isinstance(each, SplitStep)
    assert list(each.subgraph.steps) == ["a", "b"]


def test_every_problem_of_the_shape_is_told_at_once() -> None:
    document = {
        "executionGraph": {
            "stepz": 1,
            "steps": {
                "fetch": {"stepType": "Agnt"},
                "call": {
                    "stepType": "Agent",
                    "id": "other",
                    "agentId": "http",
                    "inputMapping": {"url": "x", "body": {"valueType": "refrence", "value": "data.x"}},
                    "maxRetries": True,
                    "timout": 3,
                },
                "check": {"stepType": "Conditional", "condition": {"type": "operation", "op": "EQUALS"}},
                "match": {"stepType": "Conditional", "condition": {"type": "operation", "op": "BETWEEN"}},
                "say": {"stepType": "Log", "message": "m", "level": "inof"},
                "child": {"stepType": "EmbedWorkflow", "childWorkflowId": "c", "childVersion": "newest"},
                "no": 3,
            },
            "executionPlan": [{"fromStep": "fetch"}, {"fromStep": "call", "toStep": "say", "labell": "x"}],
        },
        "memoryTier": "XL",
    }
    at = "/executionGraph/steps"
    assert sorted(found(document)) == sorted(
        [
            ("W200", "/memoryTier"),
            ("E201", "/executionGraph/stepz"),
            ("E204", f"{at}/fetch/stepType"),
            ("E205", f"{at}/call/id"),
            ("E202", f"{at}/call/capabilityId"),
            ("E203", f"{at}/call/inputMapping/url"),
            ("E203", f"{at}/call/inputMapping/body"),
            ("E203", f"{at}/call/maxRetries"),
            ("E201", f"{at}/call/timout"),
            ("E025", f"{at}/check/condition/op"),
            ("E027", f"{at}/match/condition/op"),
            ("E024", f"{at}/say/level"),
            ("E050", f"{at}/child/childVersion"),
            ("E200", f"{at}/no"),
            ("E202", "/executionGraph/executionPlan/0/toStep"),
            ("E201", "/executionGraph/executionPlan/1/labell"),
        ]
    )


@pytest.mark.parametrize(
    ("step", "suggestion"),
    [
        ({"stepType": "Agnt"}, "Agent"),
        ({"stepType": "Log", "mesage": "x", "message": "m"}, "message"),
        ({"stepType": "Log", "message": "x", "level": "warning"}, None),
        ({"stepType": "Log", "message": "x", "level": "wran"}, "warn"),
        ({"stepType": "Conditional", "condition": {"op": "START_WITH", "arguments": []}}, "STARTS_WITH"),
        ({"stepType": "Finish", "inputMapping": {"a": {"valueType": "imediate", "value": 1}}}, "immediate"),
        (
            {"stepType": "Split", "subgraph": {"steps": {}}, "config": {"value": reference("d"), "paralelism": 2}},
            "parallelism",
        ),
        (
            {"stepType": "Finish", "inputMapping": {"a": {"valueType": "reference", "value": "d", "defualt": 1}}},
            "default",
        ),
    ],
)
def test_a_slip_of_the_finger_gets_a_suggestion(step: dict[str, object], suggestion: str | None) -> None:
    problems = parse({"steps": {"a": step}}, id="w").problems
    assert [problem.suggestion for problem in problems] == [suggestion]


@pytest.mark.parametrize(
    "document", [None, [], "x", 3, {}, {"steps": []}, {"executionGraph": 1}, {"steps": {"a": None}}]
)
def test_what_is_no_document_is_a_problem_and_never_an_exception(document: object) -> None:
    parsed = parse(document, id="w")
    assert parsed.graph is None
    assert parsed.problems


def test_nesting_has_a_limit() -> None:
    def nested(levels: int) -> Parsed:
        value: object = 1
        for _ in range(levels):
            value = [value]
        return parse({"steps": {"end": FINISH}, "notes": value}, id="w")

    assert nested(MAX_NESTING - 1).graph is not None
    assert [problem.code for problem in nested(100_000).problems] == ["E200"]


def test_problems_have_a_json_form() -> None:
    (problem,) = parse({"steps": {"a/b~": {"stepType": "Lgo"}}}, id="w").problems
    assert json.loads(json.dumps(problem.as_json())) == {
        "code": "E204",
        "name": "UnknownStepType",
        "severity": "error",
        "message": "there is no step type 'Lgo'",
        "step": "a/b~",
        "pointer": "/steps/a~1b~0/stepType",
        "suggestion": "Log",
    }


def test_a_match_may_be_an_immediate_value_and_no_reference() -> None:
    def document(match: object) -> dict[str, object]:
        cases = [{"matchType": "EQ", "match": match, "output": 1}]
        switch = {"stepType": "Switch", "config": {"value": {"valueType": "immediate", "value": 1}, "cases": cases}}
        return {"steps": {"s": switch}}

    graph = parse(document({"valueType": "immediate", "value": [1, 2]}), id="w").graph
    assert graph is not None
    assert graph.steps["s"].config.cases[0].match == [1, 2]  # type: ignore[union-attr]
    (problem,) = parse(document({"valueType": "reference", "value": "data.x"}), id="w").problems
    assert problem.pointer == "/steps/s/config/cases/0/match"
    assert "cannot refer" in problem.message
