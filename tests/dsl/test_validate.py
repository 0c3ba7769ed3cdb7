"""The validator: each code has a file that triggers it, alone, and one that is the same without the mistake."""

import json
from pathlib import Path
from typing import Final

import pytest

from runtara.dsl.files import parse_text
from runtara.dsl.problems import CODES, Problem, Severity
from runtara.dsl.validate import validate
from tests.support.shop_agent import shop_registry

FILES: Final = Path(__file__).with_name("files")
CHILDREN: Final = {path.stem: json.loads(path.read_text()) for path in (FILES / "children").glob("*.json")}
TELLS: Final[dict[str, tuple[str, str | None, str | None]]] = {
    "E001": ("/entryPoint", None, "a"),
    "E002": ("/steps/b", "b", None),
    "E003": ("/steps/end", "end", None),
    "E004": ("/steps", None, None),
    "E010": ("/steps/end/inputMapping/x/value", "end", "order"),
    "E011": ("/steps/end/inputMapping/x/value", "end", None),
    "E012": ("/steps/a/context/x/value", "a", None),
    "E013": ("/steps/end/inputMapping/x/value", "end", "_instance_id"),
    "E014": ("/executionPlan/1/toStep", "a", "end"),
    "E020": ("/steps/order/agentId", "order", "shop"),
    "E021": ("/steps/order/capabilityId", "order", "order"),
    "E022": ("/steps/order/inputMapping/sku", "order", None),
    "E023": ("/steps/order/inputMapping/amount/value", "order", None),
    "E024": ("/steps/order/inputMapping/size/value", "order", "small"),
    "E025": ("/steps/c/condition/arguments", "c", None),
    "E026": ("/steps/order", "order", None),
    "E027": ("/steps/c/condition/op", "c", None),
    "E050": ("/steps/child/childVersion", "child", None),
    "E051": ("/steps/end/inputMapping/x/value", "end", "customer"),
    "E053": ("/steps/end/inputMapping/x/value", "end", "rate"),
    "E054": ("/steps/child/inputMapping", "child", None),
    "E055": ("/steps/child/inputMapping", "child", None),
    "E056": ("/steps/child/childWorkflowId", "child", None),
    "E058": ("/steps/end/inputMapping/x/value", "end", "total"),
    "E059": ("/steps/end/inputMapping/x/value", "end", None),
    "E060": ("/steps/b/name", "b", None),
    "E070": ("/executionPlan/1/priority", "a", None),
    "E071": ("/executionPlan/2", "a", None),
    "E072": ("/executionPlan/1/condition", "c", None),
    "E073": ("/steps/a", "a", None),
    "E124": ("/steps/child/childWorkflowId", "child", None),
    "E125": ("/steps/each/subgraph/steps/child", "each/child", None),
    "E126": ("/steps/end/inputMapping/x/value", "end", "data"),
    "E127": ("/steps/end/inputMapping/x/value", "end", None),
    "E200": ("", None, None),
    "E201": ("/steps/a/mesage", "a", "message"),
    "E202": ("/steps/a/message", "a", None),
    "E203": ("/steps/order/maxRetries", "order", None),
    "E204": ("/steps/a/stepType", "a", "Log"),
    "E205": ("/steps/a/id", "a", None),
    "E206": ("/executionPlan/1/label", "a", "onError"),
    "E207": ("/executionPlan", None, None),
    "E208": ("/steps/end/inputMapping/x/value", "end", None),
    "E209": ("/steps/end/inputMapping/body.id", "end", None),
    "E210": ("", None, None),
    "W003": ("/steps/a", "a", None),
    "W020": ("/steps/order/inputMapping/amonut", "order", "amount"),
    "W030": ("/steps/order/maxRetries", "order", None),
    "W031": ("/steps/order/retryDelay", "order", None),
    "W032": ("/steps/each/config/parallelism", "each", None),
    "W033": ("/steps/loop/config/maxIterations", "loop", None),
    "W034": ("/steps/order/timeout", "order", None),
    "W040": ("/executionPlan/1", "a", None),
    "W050": ("/steps/order/inputMapping/note/value", "order", None),
    "W051": ("/steps/end/inputMapping/x/value", "end", None),
    "W052": ("/steps/end/inputMapping/x/value", "end", None),
    "W081": ("/inputSchema", None, None),
    "W082": ("/steps/child/childWorkflowId", "child", None),
    "W200": ("/memoryTier", None, None),
}
"""Code → pointer, step and suggestion."""


def problems_of(file: str, code: str) -> tuple[Problem, ...]:
    """Of a file; only E124 takes it for certain that a child which is not there does not exist."""
    document, problems = parse_text((FILES / f"{file}.json").read_text())
    found = validate(document, id=file, agents=shop_registry(), children=CHILDREN, children_complete=code == "E124")
    return (*problems, *found)


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_told_where_its_mistake_is(code: str) -> None:
    problems = problems_of(code, code)
    (found,) = [problem for problem in problems if problem.code == code]
    assert [problem for problem in problems if problem.severity is Severity.ERROR and problem.code != code] == []
    assert (found.pointer, found.step, found.suggestion) == TELLS[code]
    assert found.message


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_silent_where_its_mistake_is_not(code: str) -> None:
    problems = problems_of(f"{code}-ok", code)
    assert [problem for problem in problems if problem.severity is Severity.ERROR or problem.code == code] == []
