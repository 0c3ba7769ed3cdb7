"""`runtara dsl`: what people and scripts see of JSON workflows, without a platform."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from .conftest import Shell

FINISH: dict[str, Any] = {"stepType": "Finish"}
GOOD: dict[str, Any] = {"name": "Two <steps>", "steps": {"say": {"stepType": "Log", "message": "m"}, "end": FINISH},
                        "executionPlan": [{"fromStep": "say", "toStep": "end"}]}  # fmt: skip
BAD: dict[str, Any] = {
    "steps": {
        "say": {"stepType": "Log", "mesage": "m"},
        "end": {"stepType": "Finish", "inputMapping": {"x": {"valueType": "reference", "value": "steps.sya.outputs"}}},
    },
    "executionPlan": [{"fromStep": "say", "toStep": "end"}],
    "entryPoint": "start",
}


@pytest.fixture
def folder(tmp_path: Path) -> Shell:
    """A directory with workflows, and no platform anywhere near."""
    documents = {"good": GOOD, "bad": BAD}
    documents["parent"] = {"steps": {"child": {"stepType": "EmbedWorkflow", "childWorkflowId": "good"}, "end": FINISH},
                           "executionPlan": [{"fromStep": "child", "toStep": "end"}]}  # fmt: skip
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return Shell(tmp_path)


def test_a_legal_file_is_valid_and_a_child_is_found_beside_it(folder: Shell) -> None:
    done = folder.run("dsl", "validate", "good.json", "parent.json")
    assert (done.returncode, done.stdout) == (0, "good.json: valid\nparent.json: valid\n"), done.stderr
    (folder.folder / "good.json").unlink()
    (verdict,) = folder.lines("dsl", "validate", "parent.json")
    assert [problem["code"] for problem in verdict["problems"]] == ["W082"]


def test_all_that_is_wrong_is_told_by_step(folder: Shell) -> None:
    done = folder.run("dsl", "validate", "bad.json")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "bad.json: not valid (4 errors)"
    assert lines[1] == "  the workflow"
    assert lines[2].startswith("    error   E001  the entry point 'start' is no step")
    assert "  step end" in lines
    assert any("E010" in line and "did you mean 'say'?" in line for line in lines)
    assert any("E201" in line and "did you mean 'message'?" in line for line in lines)
    assert "\x1b" not in done.stdout


def test_scripts_get_one_line_a_file(folder: Shell) -> None:
    done = folder.run("dsl", "validate", "good.json", "bad.json", "--json")
    good, bad = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 1
    assert (good["valid"], good["problems"], good["workflow"]) == (True, [], "good")
    assert (bad["valid"], bad["errors"], bad["warnings"]) == (False, 4, 0)
    assert bad["problems"][0].keys() == {"code", "name", "severity", "message", "step", "pointer", "suggestion"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "line 1, column 2"), ("[]", "no JSON object"), ('{"steps": {}, "steps": {}}', "'steps' is there twice")],
)
def test_standard_input_and_what_is_no_document(folder: Shell, text: str, words: str) -> None:
    done = folder.run("dsl", "validate", "-", input=text)
    assert done.returncode == 1
    assert words in done.stdout


def test_a_file_that_cannot_be_read_is_a_usage_error(folder: Shell) -> None:
    (folder.folder / "latin.json").write_bytes(b'"\xff"')
    for file, words in (("nobody.json", "No such file"), ("latin.json", "no UTF-8 text")):
        for command in ("validate", "graph"):
            done = folder.run("dsl", command, file)
            assert (done.returncode, words in done.stderr) == (2, True), done.stderr
            assert "Traceback" not in done.stderr


def test_a_graph_is_drawn_as_mermaid_or_svg(folder: Shell) -> None:
    assert folder.run("dsl", "graph", "good.json").stdout.startswith("flowchart TD\n")
    done = folder.run("dsl", "graph", "good.json", "--format", "svg", "-o", "good.svg")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    root = ElementTree.parse(folder.folder / "good.svg").getroot()
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == "Two <steps>"
    (line,) = folder.lines("dsl", "graph", "good.json")
    assert line["format"] == "mermaid"
    done = folder.run("dsl", "graph", "bad.json")
    assert (done.returncode, "E202 at /steps/say/message" in done.stderr) == (2, True)


def test_the_schema_is_json(folder: Shell) -> None:
    schema = json.loads(folder.run("dsl", "schema").stdout)
    assert schema["$defs"]["LogStep"]["required"] == ["stepType", "message"]
    assert len(folder.run("dsl", "schema", "--json").stdout.splitlines()) == 1
