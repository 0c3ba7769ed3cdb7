"""`runtara schedule …`, as people and scripts use it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)

INPUT = '{"order_ids": ["a", "b"]}'


@pytest.fixture(autouse=True)
def left_clean(shell: Shell) -> Iterator[None]:
    yield
    for schedule in shell.lines("schedule", "list"):
        shell.run("schedule", "delete", schedule["name"], "--yes")


def create(shell: Shell, name: str, *arguments: str) -> dict[str, Any]:
    (document,) = shell.lines("schedule", "create", name, "orders", "--input", INPUT, *arguments)
    return document


def test_the_life_of_a_schedule(shell: Shell) -> None:
    done = shell.run(
        "schedule", "create", "nightly", "orders", "--cron", "0 3 * * *", "--timezone", "Europe/Zurich",
        "--input", INPUT, "--label", "team=red",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nightly  next ")
    assert "03:00:00 CE" in done.stdout
    (shown,) = shell.lines("schedule", "show", "nightly")
    assert set(shown) == {
        "name", "workflow", "cron", "every_seconds", "timezone", "input", "input_blob", "labels", "overlap", "catch_up",
        "paused", "next_due", "upcoming", "last", "problem", "problem_at", "created_at", "created_by", "updated_at",
        "updated_by",
    }  # fmt: skip
    assert (shown["cron"], shown["input"], shown["labels"]) == ("0 3 * * *", json.loads(INPUT), {"team": "red"})
    assert shown["created_by"]

    assert shell.run("schedule", "pause", "nightly").stdout == "nightly  paused\n"
    assert shell.lines("schedule", "list", "--paused")[0]["next_due"] is None
    triggered = shell.run("schedule", "trigger", "nightly")
    assert triggered.stdout.startswith("nightly-manual-2")
    id = triggered.stdout.strip()
    assert shell.run("result", id, "--timeout", "30").returncode == 0
    (instance,) = shell.lines("list", "--label", "schedule=nightly")
    assert (instance["id"], instance["labels"]) == (id, {"schedule": "nightly", "team": "red"})
    assert shell.run("schedule", "resume", "nightly").stdout.startswith("nightly  next ")

    people = shell.run("schedule", "show", "nightly").stdout
    assert "0 3 * * * Europe/Zurich" in people
    assert f"{id}  completed" in people
    assert people.count("03:00:00 CE") == 5
    listed = shell.run("schedule", "list").stdout
    assert all(part in listed for part in ("NAME", "nightly", "orders", "03:00:00", id, "completed"))
    assert shell.run("schedule", "delete", "nightly", "--yes").stdout == "nightly  deleted\n"
    assert shell.run("show", id).returncode == 0


def test_triggered_with_wait_it_prints_the_result(shell: Shell) -> None:
    create(shell, "hourly", "--every", "1h")
    done = shell.run("schedule", "trigger", "hourly", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["id"].startswith("hourly-manual-")
    assert "result" in document


def test_it_starts_by_itself(shell: Shell) -> None:
    create(shell, "often", "--every", "1s", "--overlap", "allow")
    done = shell.run("tail", "--help")
    assert done.returncode == 0
    for _ in range(60):
        (schedule,) = shell.lines("schedule", "list")
        if schedule["last"]:
            break
    assert schedule["last"][0]["id"].startswith("often-2")


def test_the_same_again_and_another_definition(shell: Shell) -> None:
    first = create(shell, "daily", "--cron", "0 3 * * *")
    assert create(shell, "daily", "--cron", "0 3 * * *") == first
    done = shell.run("schedule", "create", "daily", "orders", "--cron", "0 4 * * *", "--input", INPUT)
    assert (done.returncode, "another cron expression" in done.stderr, "--replace" in done.stderr) == (4, True, True)
    assert create(shell, "daily", "--cron", "0 4 * * *", "--replace")["cron"] == "0 4 * * *"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "s", "orders", "--cron", "0 0 30 2 *"], 2, "is never due: month 2 has no day 30"),
        (["create", "s", "orders", "--cron", "60 * * * *"], 2, "'60' is no minute"),
        (["create", "s", "orders", "--cron", "0 3 * * *", "--timezone", "europe/zurich"], 2, "'Europe/Zurich'"),
        (["create", "s", "orders"], 2, "--cron or --every"),
        (["create", "s", "orders", "--every", "1 h"], 2, "is not an age"),
        (["create", "s", "orders", "--every", "0s"], 2, "cannot be due every"),
        (["create", "s", "order", "--every", "1h"], 3, "did you mean 'orders'?"),
        (["create", "a.b", "orders", "--every", "1h"], 2, "not a legal schedule"),
        (["create", "s", "orders", "--every", "1h", "--overlap", "maybe"], 2, "overlap"),
        (["show", "nobody"], 3, "there is no schedule 'nobody'"),
        (["trigger", "nobody"], 3, "no schedule"),
        (["delete", "nobody", "--yes"], 3, "no schedule"),
        (["delete", "nobody"], 2, "--yes"),
    ],
)
def test_an_error_says_what_is_wrong_and_has_its_code(
    shell: Shell, arguments: list[str], code: int, words: str
) -> None:
    done = shell.run("schedule", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_lists_are_told_where_they_go_on(shell: Shell) -> None:
    assert shell.run("schedule", "list").stderr == "no schedules\n"
    for name in ("a", "b"):
        create(shell, name, "--every", "1h", "--label", f"of={name}")
    done = shell.run("schedule", "list", "--limit", "1")
    assert done.stderr == "more: --cursor a\n"
    assert [line["name"] for line in shell.lines("schedule", "list", "--cursor", "a")] == ["b"]
    assert [line["name"] for line in shell.lines("schedule", "list", "--label", "of=b")] == ["b"]
    assert shell.lines("schedule", "list", "--tenant", "acme") == []
