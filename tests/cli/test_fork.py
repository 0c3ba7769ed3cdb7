"""`runtara fork`: what it prints, what `show` and `log` say of a fork, and how it fails."""

import json

import pytest

from runtara.cli.forks import parse_answers

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def source(shell: Shell) -> str:
    """A batch of two orders that has ended."""
    given = '{"order_ids": ["a", "b"]}'
    done = shell.run("start", "orders", "--id", "source", "--input", given, "--label", "team=a", "--wait")
    assert done.returncode == 0, done.stderr
    return "source"


def keys(shell: Shell, id: str) -> list[str]:
    return [event["key"] for event in shell.lines("log", id) if event["key"] is not None]


def test_it_prints_the_id_of_the_fork_which_runs_from_the_key_on(shell: Shell, source: str) -> None:
    at = keys(shell, source)[1]
    done = shell.run("fork", source, "--at", at, "--input", '{"order_ids": ["a", "b", "c"]}')
    assert done.returncode == 0, done.stderr
    id = done.stdout.strip()
    assert id.startswith("source-fork-")
    assert shell.run("result", id, "--timeout", "20").returncode == 0
    types = [event["type"] for event in shell.lines("log", id)]
    assert (types.count("MemoCopied"), types.count("CheckpointSaved")) == (1, 5)
    (shown,) = shell.lines("show", id)
    last = shell.lines("log", source)[-1]["version"]
    assert (shown["forked_from"], shown["labels"], shown["input"]) == (
        {"id": source, "version": last}, {"team": "a"}, {"order_ids": ["a", "b", "c"]},
    )  # fmt: skip
    assert shell.lines("show", source)[0]["forked_from"] is None


def test_people_are_told_where_it_comes_from_and_what_was_copied(shell: Shell, source: str) -> None:
    first, second, *_ = keys(shell, source)
    done = shell.run(
        "fork", source, "--id", "told", "--at", second, "--set", f'{first}="by hand"', "--label", "why=test"
    )
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
    assert "forked from" in shell.run("show", "told").stdout
    assert "source at version" in shell.run("show", "told").stdout
    log = shell.run("log", "told").stdout
    assert f"before {second}, set by hand: {first}" in log
    assert 'CheckpointSaved {"kind":"step","value":"by hand"}' in log
    assert shell.lines("show", "told")[0]["labels"] == {"why": "test"}


def test_its_faults_have_their_exit_codes(shell: Shell, source: str) -> None:
    near = keys(shell, source)[0]
    unknown = shell.run("fork", source, "--at", near[:-1])
    assert (unknown.returncode, f"did you mean '{near}'" in unknown.stderr) == (3, True), unknown.stderr
    assert "runtara log source" in unknown.stderr
    assert shell.run("fork", "nobody").returncode == 3
    conflict = shell.run("fork", source, "--id", source, "--json")
    assert conflict.returncode == 4
    assert json.loads(conflict.stderr)["error"]["code"] == "StartConflict"
    for wrong in (
        ["--set", "no-json"],
        ["--set", f"{near}=oops"],
        ["--input", "[1]"],
        ["--id", "a.b"],
        ["--label", "x"],
    ):
        assert shell.run("fork", source, *wrong).returncode == 2, wrong
    assert shell.lines("fork", source, "--id", "as-json") == [{"id": "as-json"}]


def test_a_fork_of_what_failed_fails_again_and_can_be_retried_like_any_other(shell: Shell) -> None:
    shell.run("start", "broken", "--id", "failed", "--wait")
    id = shell.run("fork", "failed").stdout.strip()
    assert shell.run("result", id).returncode == 1
    assert shell.run("retry", id).returncode == 0


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("a=1", {"a": 1}),
        ('a="x=y"', {"a": "x=y"}),
        ("a=b=null", {"a=b": None}),
        ('items/7={"n": [1, 2]}', {"items/7": {"n": [1, 2]}}),
    ],
)
def test_an_answer_begins_behind_the_equals_sign_that_has_json_behind_it(text: str, answers: dict[str, object]) -> None:
    assert parse_answers([text]) == answers
