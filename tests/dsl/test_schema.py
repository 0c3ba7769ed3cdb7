"""The exported JSON Schema agrees with what is read."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from runtara.dsl.schema import document_schema
from tests.support.documents import workflows

SCHEMA = document_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = Path(__file__).with_name("files")


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert "title" not in json.dumps(SCHEMA["$defs"]["AgentStep"])
    assert SCHEMA["$defs"]["AgentStep"]["properties"]["maxRetries"]["default"] == 3


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workflows())
def test_legal_documents_fit_it(document: dict[str, Any]) -> None:
    VALIDATOR.validate(json.loads(json.dumps(document)))


@pytest.mark.parametrize("file", sorted(FILES.glob("*-ok.json")), ids=lambda file: file.stem)
def test_files_without_a_mistake_fit_it(file: Path) -> None:
    VALIDATOR.validate({key: value for key, value in json.loads(file.read_text()).items() if key != "memoryTier"})


@pytest.mark.parametrize("code", ["E024-log", "E200", "E201", "E202", "E203", "E204", "E025-operator"])
def test_files_of_a_wrong_shape_do_not(code: str) -> None:
    documents: dict[str, Any] = {
        "E024-log": {"steps": {"a": {"stepType": "Log", "message": "x", "level": "loud"}}},
        "E025-operator": {"steps": {"a": {"stepType": "Conditional", "condition": {"op": "EQUALS"}}}},
    }
    document = documents[code] if code in documents else json.loads((FILES / f"{code}.json").read_text())
    assert not VALIDATOR.is_valid(document)


def test_a_json_schema_object_may_declare_the_input() -> None:
    schema = {"type": "object", "properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]}
    VALIDATOR.validate({"steps": {"end": {"stepType": "Finish"}}, "inputSchema": schema})
