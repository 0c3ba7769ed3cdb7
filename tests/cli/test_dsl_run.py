"""JSON workflows on the command line: compiled, hosted by `dev`, run, and their steps in the log."""

import json
from pathlib import Path

import pytest

from tests.support.steps import finish, graph, mapping, ref, step

from .conftest import TIDY, Shell

CHILD = graph({"end": finish(n=ref("data.n"))}, inputSchema={"n": {"type": "integer"}})
PARENT = graph(
    {
        "child": step("EmbedWorkflow", childWorkflowId="child", inputMapping=mapping({"n": 7})),
        "end": finish(n=ref("steps.child.outputs.n")),
    }
)
NAMES = '{"names": ["Ada Lovelace", "Grace Hopper"]}'


@pytest.fixture
def folder(tmp_path: Path) -> Shell:
    for name, document in {"tidy": TIDY, "child": CHILD, "parent": PARENT, "bad": {"steps": {}}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return Shell(tmp_path)


def test_a_workflow_is_compiled_to_source_that_python_reads(folder: Shell) -> None:
    done = folder.run("dsl", "compile", "tidy.json")
    assert done.returncode == 0, done.stderr
    compile(done.stdout, "tidy.py", "exec")
    assert 'await run.agent("slug", "text", "slugify", {"text": ref("item")})' in done.stdout
    assert folder.run("dsl", "compile", "tidy.json", "-o", "tidy.py").stdout == ""
    assert (folder.folder / "tidy.py").read_text() == done.stdout
    assert folder.run("dsl", "compile", "-", input=json.dumps(TIDY)).stdout == done.stdout.replace("tidy", "stdin")
    (told,) = folder.lines("dsl", "compile", "tidy.json")
    assert told == {"workflow": "tidy", "source": done.stdout, "file": None}


@pytest.mark.parametrize(
    ("file", "says"), [("bad.json", "E004"), ("none.json", "No such file"), ("tidy.py", "not JSON")]
)
def test_what_cannot_be_compiled_says_why(folder: Shell, file: str, says: str) -> None:
    (folder.folder / "tidy.py").write_text("x = 1")
    done = folder.run("dsl", "compile", file)
    assert done.returncode == 2
    assert says in done.stderr


def test_dev_hosts_a_json_workflow_and_log_shows_its_steps(shell: Shell) -> None:
    (done,) = shell.lines("start", "tidy", "--input", NAMES, "--id", "tidy-1", "--wait")
    assert done["result"] == {"all": [{"slug": "ada-lovelace"}, {"slug": "grace-hopper"}]}
    log = shell.run("log", "tidy-1")
    table = log.stdout.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["STEP", "TYPE", "STATE", "STARTED", "TOOK", "INPUTS", "OUTPUTS"]
    rows = {line.split()[0]: line for line in table[1:]}
    assert set(rows) == {"each", "each/0/slug", "each/0/end", "each/1/slug", "each/1/end", "done"}
    assert '{"text":"Ada Lovelace"}' in rows["each/0/slug"]
    assert '"ada-lovelace"' in rows["each/0/slug"]
    assert "Agent" in rows["each/0/slug"]
    assert "ended" in rows["each/0/slug"]
    refused = shell.run("start", "tidy", "--input", '{"names": [1]}', "--wait")
    assert refused.returncode == 1
    assert "data.names[0] must be a string, not a number" in refused.stderr


@pytest.mark.slow
def test_a_workflow_runs_with_those_that_it_embeds(folder: Shell) -> None:
    done = folder.run("dsl", "run", "parent.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == {"n": 7}
    again = folder.run("run", "child.json", "--input", '{"n": 3}', "--json")
    assert json.loads(again.stdout)["result"] == {"n": 3}
