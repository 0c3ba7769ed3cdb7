"""The command line is a contract: exit codes, JSON fields, one clear line for each error."""

import json

import pytest

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)
INPUT = '{"order_ids": ["o-1", "o-2"]}'


def test_a_start_prints_the_id_and_with_wait_the_result(shell: Shell) -> None:
    started = shell.run("start", "orders", "--id", "first", "--input", INPUT, "--label", "team=red")
    assert (started.returncode, started.stdout) == (0, "first\n"), started.stderr
    waited = shell.run("start", "orders-at-most-once", "--input", "-", "--wait", "--json", input=INPUT)
    assert json.loads(waited.stdout)["result"] == 2
    assert shell.lines("result", "first")[0]["result"][0] == "parcel for o-1 (receipt-o-1)"


def test_show_and_log_have_the_fields_that_scripts_rely_on(shell: Shell) -> None:
    shell.run("start", "orders", "--id", "fields", "--input", INPUT, "--label", "team=blue", "--wait")
    (view,) = shell.lines("show", "fields")
    assert view.keys() >= {
        "id", "tenant", "workflow", "status", "attempt", "restarts", "input", "result", "error", "labels",
        "created_at", "updated_at", "wake_at",
    }  # fmt: skip
    assert (view["status"], view["labels"], view["input"]) == ("completed", {"team": "blue"}, json.loads(INPUT))
    assert view["created_at"].endswith("Z")
    events = shell.lines("log", "fields", "--follow")
    assert all(event.keys() >= {"version", "type", "at", "attempt", "key", "data"} for event in events)
    assert [event["type"] for event in events][0 :: len(events) - 1] == ["InstanceCreated", "InstanceCompleted"]


def test_lists_can_be_filtered_and_paged(shell: Shell) -> None:
    for n in range(3):
        shell.run("start", "orders", "--id", f"page-{n}", "--input", INPUT, "--label", "batch=pages", "--wait")
    first = shell.run("list", "--label", "batch=pages", "--limit", "2", "--json")
    assert [json.loads(line)["id"] for line in first.stdout.splitlines()] == ["page-2", "page-1"]
    cursor = first.stderr.split("--cursor ")[1].strip()
    second = shell.lines("list", "--label", "batch=pages", "--cursor", cursor)
    assert [view["id"] for view in second] == ["page-0"]
    assert shell.lines("list", "--label", "batch=pages", "--status", "failed") == []
    assert "page-1" in shell.run("list", "--workflow", "orders").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nobody"], 3, "there is no instance 'nobody'"),
        (["start", "order"], 3, "did you mean 'orders'"),
        (["start", "orders", "--input", "[1]"], 2, "one JSON object"),
        (["start", "orders", "--input", "{"], 2, "not JSON"),
        (["start", "orders", "--id", "a.b", "--input", INPUT], 2, "not a legal instance"),
        (["start", "broken", "--wait"], 1, "ValueError: no luck"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_conflicts_time_outs_and_cancelled_instances_have_their_codes(shell: Shell) -> None:
    shell.run("start", "orders", "--id", "taken", "--input", INPUT, "--wait")
    assert shell.run("start", "orders", "--id", "taken", "--input", '{"order_ids": []}').returncode == 4
    assert shell.run("pause", "taken").returncode == 4
    shell.run("start", "endless", "--id", "endless")
    assert shell.run("result", "endless", "--timeout", "0.2").returncode == 124
    assert shell.run("cancel", "endless", "--reason", "enough").returncode == 0
    ended = shell.run("result", "endless", "--timeout", "20", "--json")
    assert (ended.returncode, json.loads(ended.stderr)["error"]["code"]) == (1, "WorkflowCancelled")


def test_without_a_platform_the_error_says_what_to_do(shell: Shell) -> None:
    elsewhere = Shell(shell.folder.parent)
    done = elsewhere.run("list")
    assert (done.returncode, "runtara dev" in done.stderr) == (5, True)


def test_workflows_are_listed_with_their_workers(shell: Shell) -> None:
    assert {view["id"] for view in shell.lines("workflow", "list")} == {
        "orders", "orders-at-most-once", "broken", "endless", "long", "tidy",
    }  # fmt: skip
    (view,) = shell.lines("workflow", "show", "orders")
    assert len(view["workers"]) == 1
    assert "order_ids" in json.dumps(view["parameters"])
    assert shell.run("workflow", "show", "nothing").returncode == 3


def test_the_audit_finds_nothing_wrong(shell: Shell) -> None:
    (verdict,) = shell.lines("audit", "verify")
    assert verdict["findings"] == []
    assert verdict["events"] > 0
    assert shell.lines("audit", "replay")[0]["findings"] == []


def test_a_second_dev_in_the_same_directory_is_refused(shell: Shell) -> None:
    done = shell.run("dev")
    assert done.returncode != 0
    assert "in use by another `runtara dev`" in done.stderr


def test_every_command_has_help(shell: Shell) -> None:
    overview = shell.run("--help").stdout
    commands = [
        "dev", "demo", "run", "engine", "worker", "runner", "migrate", "start", "list", "show", "result", "log", "tail",
        "pause", "resume", "cancel", "retry", "signal", "workflow", "audit",
    ]  # fmt: skip
    for command in commands:
        assert command in overview
        assert "Usage: " in shell.run(command, "--help").stdout


def test_list_does_not_import_the_engine(shell: Shell) -> None:
    import subprocess
    import sys

    code = "import sys, runtara.cli.app; print('runtara.engine' in sys.modules, 'asyncpg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "False False\n"
    )
