"""`runtara audit`: exports, heads that are kept, archives, and what they say when something is wrong."""

import json
from pathlib import Path

import asyncpg
import pytest

from runtara.infra.settings import Settings
from tests.support.archives import read_archive

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)
INPUT = '{"order_ids": ["o-1"]}'


def ran(shell: Shell, *ids: str) -> None:
    for id in ids:
        done = shell.run("start", "orders", "--id", id, "--input", INPUT, "--wait")
        assert done.returncode == 0, done.stderr


async def tamper(shell: Shell, statement: str) -> None:
    """Into the database, past everybody."""
    settings = Settings.load(directory=shell.folder, environ={})
    connection = await asyncpg.connect(
        settings.require_database_url(), server_settings={"search_path": settings.deployment}
    )
    await connection.execute(statement)
    await connection.close()


def test_an_export_goes_to_standard_output_and_ends_with_heads(shell: Shell) -> None:
    ran(shell, "out-1", "out-2")
    done = shell.run("audit", "export", "--instance", "out-1")
    assert done.returncode == 0, done.stderr
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["instance"] for event in events} == {"out-1"}
    assert events[0]["type"] == "InstanceCreated"
    assert events[0]["recorded_at"].endswith("Z")
    (verdict,) = shell.lines("audit", "verify")
    assert last == {"deployment": verdict["deployment"], "heads": last["heads"]}
    assert last["heads"][0]["offset"] <= verdict["heads"][0]["offset"]


@pytest.mark.parametrize("name", ["kept.ndjson", "kept.parquet"])
def test_a_file_that_was_kept_proves_the_log(shell: Shell, name: str, tmp_path: Path) -> None:
    ran(shell, f"before-{name[5:7]}")
    file = tmp_path / name
    (told,) = shell.lines("audit", "export", str(file))
    assert (told["file"], told["events"]) == (str(file), told["heads"][0]["offset"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    ran(shell, f"after-{name[5:7]}")
    assert shell.run("audit", "verify", "--heads", str(file)).returncode == 0


def test_a_verdict_that_was_kept_proves_the_log(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    file.write_text(shell.run("audit", "verify", "--json").stdout)
    assert shell.run("audit", "verify", "--heads", str(file)).returncode == 0
    verdict = json.loads(file.read_text())
    verdict["heads"][0]["hash"] = "00" * 32
    file.write_text(json.dumps(verdict))
    done = shell.run("audit", "verify", "--heads", str(file))
    place = f"bad  partition 0 offset {verdict['heads'][0]['offset'] - 1}:"
    assert (done.returncode, done.stdout.startswith(place)) == (1, True), done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "--since", "yesterday"], "2026-11-22T03:00:00Z"),
        (["export", "--until", "2026-11-22T03:00:00"], "is not a time"),
        (["export", "--format", "parquet"], "needs a FILE"),
        (["export", "no/such/folder/file"], "cannot write"),
        (["verify", "--heads", "no-such-file"], "cannot read"),
        (["archive", "--older-than", "a month", "--to", "x"], "30d"),
        (["archive", "--older-than", "30d"], "--dry-run"),
        (["archive", "--older-than", "30d", "--to", "x", "--status", "running"], "only what has ended"),
        (["archive", "--older-than", "30d", "--to", "x", "--status", "done"], "completed,failed,cancelled"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_right(shell: Shell, arguments: list[str], words: str) -> None:
    done = shell.run("audit", *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


async def test_a_changed_projection_is_found_and_rebuilt_while_all_runs(shell: Shell) -> None:
    ran(shell, "drifted")
    assert "nothing differed" in shell.run("audit", "rebuild").stdout
    await tamper(shell, "UPDATE instances SET status = 'running', result = NULL WHERE instance = 'drifted'")
    done = shell.run("audit", "replay")
    assert (done.returncode, "default/drifted: the projection differs" in done.stdout) == (1, True), done.stdout
    (rebuilt,) = shell.lines("audit", "rebuild")
    assert (rebuilt["differed"], rebuilt["findings"]) == (1, [])
    assert shell.run("audit", "replay").returncode == 0
    assert shell.lines("show", "drifted")[0]["status"] == "completed"
    ran(shell, "after-the-rebuild")


def test_what_ended_is_archived_and_the_rest_goes_on(shell: Shell, tmp_path: Path) -> None:
    ran(shell, "old-1", "old-2")
    shell.run("start", "endless", "--id", "still-there")
    (would,) = shell.lines("audit", "archive", "--older-than", "0s", "--dry-run", "--status", "completed")
    assert (would["tenant"], would["status"]) == ("default", "completed")
    assert "COMPLETED" in shell.run("audit", "archive", "--older-than", "0s", "--dry-run").stdout.upper()
    assert list(tmp_path.iterdir()) == []
    (done,) = shell.lines("audit", "archive", "--older-than", "0s", "--to", str(tmp_path))
    assert done["instances"] >= 2
    events, contents = read_archive(tmp_path / done["files"][0])
    assert {"old-1", "old-2"} <= {one.instance for one in contents.retired}
    assert {event.instance for event in events} >= {"old-1", "old-2"}
    assert shell.run("show", "old-1").returncode == 3
    again = shell.run("start", "orders", "--id", "old-1", "--input", INPUT)
    assert (again.returncode, done["files"][0] in again.stderr) == (4, True)
    verified = shell.run("audit", "verify")
    assert (verified.returncode, "their hashes hold" in verified.stdout) == (0, True), verified.stdout
    assert shell.run("audit", "replay").returncode == 0
    assert shell.run("cancel", "still-there").returncode == 0
