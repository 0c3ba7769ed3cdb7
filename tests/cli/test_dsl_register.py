"""`runtara dsl register`, as an operator types it: a `runtara dev` hosts what is registered, in versions."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Shell


def saying(answer: str) -> dict[str, Any]:
    mapped = {"answer": {"valueType": "immediate", "value": answer}}
    return {"description": f"says {answer}", "steps": {"end": {"stepType": "Finish", "inputMapping": mapped}}}


def calling(child: str, version: int | str = "latest") -> dict[str, Any]:
    mapped = {"child": {"valueType": "reference", "value": "steps.call.outputs.answer"}}
    call: dict[str, Any] = {
        "stepType": "EmbedWorkflow",
        "childWorkflowId": child,
        "childVersion": version,
        "inputMapping": {},
    }
    return {
        "steps": {"call": call, "end": {"stepType": "Finish", "inputMapping": mapped}},
        "executionPlan": [{"fromStep": "call", "toStep": "end"}],
    }


def write(shell: Shell, name: str, document: object) -> str:
    (shell.folder / f"{name}.json").write_text(json.dumps(document, indent=2))
    return f"{name}.json"


def run(shell: Shell, *arguments: str) -> str:
    done = shell.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def result(shell: Shell, name: str, *options: str) -> Any:
    (line,) = shell.lines("start", name, "--wait", *options)
    return line["result"]


@pytest.mark.slow
def test_versions_are_registered_started_shown_and_deleted(shell: Shell) -> None:
    """With nothing but the files and a `runtara dev` that was started before there were any."""
    file = write(shell, "greeting", saying("one"))
    (first,) = shell.lines("dsl", "register", file)
    assert (first["workflow"], first["version"], first["created"], first["warnings"]) == ("greeting", 1, True, 0)
    assert run(shell, "dsl", "register", file) == "greeting@1  (unchanged)\n"
    assert result(shell, "greeting", "--id", "g-1") == {"answer": "one"}
    write(shell, "greeting", saying("two"))
    assert run(shell, "dsl", "register", file) == "greeting@2\n"
    assert result(shell, "greeting", "--id", "g-2") == {"answer": "two"}
    assert result(shell, "greeting", "--id", "g-3", "--version", "1") == {"answer": "one"}
    (shown,) = shell.lines("show", "g-3")
    assert (shown["workflow"], shown["definition"]) == ("greeting", 1)
    assert "greeting@1" in run(shell, "show", "g-3")

    (workflow,) = shell.lines("workflow", "show", "greeting")
    assert [(one["version"], one["is_current"]) for one in workflow["versions"]] == [(2, True), (1, False)]
    text = run(shell, "workflow", "show", "greeting")
    assert "json version 2" in text
    assert "version 1, registered" in text
    assert "says two" in text

    refused = shell.run("start", "greeting", "--version", "7")
    assert (refused.returncode, "the last version is 2" in refused.stderr) == (3, True)
    refused = shell.run("workflow", "delete", "greeting@2", "--yes")
    assert (refused.returncode, "in use by workflow greeting" in refused.stderr) == (4, True)
    run(shell, "workflow", "delete", "greeting@1", "--yes")
    assert shell.run("workflow", "delete", "greeting@1", "--yes").returncode == 3
    assert result(shell, "greeting") == {"answer": "two"}
    forked = shell.run("fork", "g-3", "--latest", "--id", "g-4")
    assert forked.returncode == 0, forked.stderr
    assert json.loads(run(shell, "result", "g-4", "--timeout", "30")) == {"answer": "two"}


def test_what_a_workflow_embeds_must_be_there_or_come_with_it(shell: Shell) -> None:
    outer, inner = write(shell, "outer", calling("inner")), write(shell, "inner", saying("child"))
    alone = shell.run("dsl", "register", outer)
    assert alone.returncode == 1
    assert "E124" in alone.stdout
    assert shell.run("workflow", "show", "outer").returncode == 3, "nothing was registered"
    assert run(shell, "dsl", "register", outer, inner) == "outer@1\ninner@1\n"
    assert result(shell, "outer") == {"child": "child"}
    assert run(shell, "dsl", "register", outer) == "outer@1  (unchanged)\n"
    write(shell, "outer", calling("inner", 9))
    refused = shell.run("dsl", "register", outer)
    assert (refused.returncode, "inner@9; the last versions are 1" in refused.stderr) == (3, True)
    python = write(shell, "caller", calling("broken"))
    assert "caller@1" in run(shell, "dsl", "register", python), "code of workers counts, too"


@pytest.mark.parametrize(
    ("text", "code"), [("{", "E200"), ('{"steps": {}}', "E004"), ('{"steps": {"a": {"stepType": "Finsh"}}}', "E204")]
)
def test_what_is_wrong_is_said_and_nothing_is_registered(shell: Shell, text: str, code: str) -> None:
    (shell.folder / "bad.json").write_text(text)
    good = write(shell, "good", saying("x"))
    done = shell.run("dsl", "register", good, "bad.json", "--json")
    assert done.returncode == 1, done.stderr
    (verdict,) = map(json.loads, done.stdout.splitlines())
    assert (verdict["file"], verdict["valid"]) == ("bad.json", False)
    assert code in {problem["code"] for problem in verdict["problems"]}
    assert shell.run("workflow", "show", "good").returncode == 3
    assert shell.run("dsl", "register", "nowhere.json").returncode == 2
