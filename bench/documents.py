"""JSON workflows of any length to measure with, like those that people write: agents, choices, templates, lists."""

from typing import Any

Json = dict[str, Any]


def chain(steps: int) -> Json:
    """A legal document of about that many steps: rounds of an agent, a choice, a filter, a switch and a log line."""
    graph: Json = {
        "steps": {},
        "executionPlan": [],
        "inputSchema": {"name": {"type": "string"}},
        "entryPoint": "text-0",
    }
    rounds = max(1, (steps - 1) // 5)
    for number in range(rounds):
        _add_round(graph, number)
    graph["steps"]["end"] = {"stepType": "Finish", "inputMapping": {"last": _ref(f"steps.text-{rounds - 1}.outputs")}}
    graph["executionPlan"].append({"fromStep": f"log-{rounds - 1}", "toStep": "end"})
    return graph


def _add_round(graph: Json, number: int) -> None:
    text, check, switch, filtered, log = (f"{kind}-{number}" for kind in ("text", "check", "switch", "filter", "log"))
    output = f"steps.{text}.outputs"
    graph["steps"] |= {
        text: {
            "stepType": "Agent",
            "name": f"Make text {number}",
            "agentId": "utils",
            "capabilityId": "return-input",
            "inputMapping": {"value": {"valueType": "template", "value": f"{{{{ data.name | upper }}}} {number}"}},
        },
        check: {
            "stepType": "Conditional",
            "condition": _operation(
                "AND", _operation("NE", _ref("data.name"), _value("nobody")), _operation("IS_DEFINED", _ref(output))
            ),
        },
        switch: {
            "stepType": "Switch",
            "config": {
                "value": _ref(output),
                "cases": [
                    {"matchType": "BETWEEN", "match": [1, 2], "output": "few"},
                    {"matchType": "STARTS_WITH", "match": "A", "output": {"name": _ref("data.name")}},
                ],
            },
        },
        filtered: {
            "stepType": "Filter",
            "config": {"value": _value([{"n": 1}, {"n": 2}]), "condition": _operation("GT", _ref("item.n"), _value(1))},
        },
        log: {"stepType": "Log", "message": f"round {number}", "context": {"made": _ref(output)}},
    }
    graph["executionPlan"] += [
        *([{"fromStep": f"log-{number - 1}", "toStep": text}] if number else []),
        {"fromStep": text, "toStep": check},
        {"fromStep": check, "toStep": switch, "label": "true"},
        {"fromStep": check, "toStep": filtered, "label": "false"},
        {"fromStep": switch, "toStep": log},
        {"fromStep": filtered, "toStep": log},
    ]


def _ref(path: str) -> Json:
    return {"valueType": "reference", "value": path}


def _value(value: object) -> Json:
    return {"valueType": "immediate", "value": value}


def _operation(op: str, *arguments: Json) -> Json:
    return {"type": "operation", "op": op, "arguments": list(arguments)}
