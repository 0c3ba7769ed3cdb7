"""`pause`, `resume`, `cancel` and `retry` of many instances at once."""

import json
import os
import pty
import subprocess
import sys

import pytest

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)


def start(shell: Shell, workflow: str, batch: str, count: int) -> list[str]:
    """So many instances with the label `batch`."""
    ids = [f"{batch}-{n}" for n in range(count)]
    for id in ids:
        done = shell.run("start", workflow, "--id", id, "--label", f"batch={batch}")
        assert done.returncode == 0, done.stderr
    return ids


def statuses(shell: Shell, batch: str) -> dict[str, str]:
    return {view["id"]: view["status"] for view in shell.lines("list", "--label", f"batch={batch}")}


def test_all_that_match_are_commanded_and_those_that_ended_are_left_out(shell: Shell) -> None:
    ids = start(shell, "endless", "many", 3)
    shell.run("cancel", ids[2])
    done = shell.run("pause", "--label", "batch=many", "--yes", "--reason", "maintenance")
    assert (done.returncode, done.stdout.startswith("pause 2 instances: 2 ")) == (0, True), done.stderr + done.stdout
    assert statuses(shell, "many")[ids[2]] == "cancelled"
    lines = shell.lines("cancel", "--label", "batch=many", "--yes")
    assert sorted(line["id"] for line in lines) == ids[:2]
    assert all(line["status"] in ("cancelled", "paused", "running") for line in lines)
    assert "no instances match" in shell.run("resume", "--workflow", "nothing", "--yes").stderr


def test_nobody_is_there_to_ask_so_it_says_how_many_and_how_to_go_on(shell: Shell) -> None:
    ids = start(shell, "endless", "asked", 2)
    done = shell.run("cancel", "--label", "batch=asked")
    assert done.returncode == 2
    assert "cancel 2 instances (asked-1, asked-0)?" in done.stderr or "(asked-0, asked-1)" in done.stderr
    assert "--yes" in done.stderr
    assert "cancelled" not in statuses(shell, "asked").values()
    shell.run("cancel", *ids)


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_at_a_terminal_a_person_is_asked(shell: Shell, answer: str, code: int) -> None:
    batch = f"person-{answer}"
    (id,) = start(shell, "broken", batch, 1)
    shell.run("result", id)
    assert at_a_terminal(shell, answer, "retry", "--label", f"batch={batch}") == code
    attempts = [event["attempt"] for event in shell.lines("log", id)]
    assert (2 in attempts) == (answer == "y")


def at_a_terminal(shell: Shell, typed: str, *arguments: str) -> int:
    """The exit code of a command whose standard input is a terminal."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{typed}\n".encode())
        command = [sys.executable, "-m", "runtara.cli", *arguments]
        done = subprocess.run(command, cwd=shell.folder, stdin=theirs, capture_output=True, timeout=60, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"1 instance (" in done.stderr
    return done.returncode


def test_what_refuses_is_told_apart_and_does_not_keep_the_others(shell: Shell) -> None:
    ids = start(shell, "endless", "mixed", 2)
    shell.run("cancel", ids[0])
    shell.run("result", ids[0], "--timeout", "20")
    done = shell.run("pause", *ids, "nobody", "--json")
    assert done.returncode == 4
    told = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert told[ids[0]]["error"]["code"] == "IllegalTransition"
    assert told["nobody"]["error"]["code"] == "InstanceNotFound"
    assert "status" in told[ids[1]]
    done = shell.run("pause", "--label", "batch=mixed", "--status", "cancelled", "--yes")
    assert (done.returncode, "1 refused" in done.stdout, "it is cancelled" in done.stderr) == (4, True, True)
    shell.run("cancel", ids[1])


@pytest.mark.parametrize("arguments", [[], ["an-id", "--label", "a=b"]])
def test_ids_or_filters_are_needed_and_not_both(shell: Shell, arguments: list[str]) -> None:
    done = shell.run("cancel", *arguments)
    assert (done.returncode, "ids" in done.stderr) == (2, True)
