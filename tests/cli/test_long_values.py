"""Long values on the command line: shown as what they are, printed where they are asked for, errors when damaged."""

import json

import pytest

from .conftest import Shell
from .test_audit import tamper

pytestmark = pytest.mark.timeout(120)
LONG = 100_000
VALUE = "x" * LONG


@pytest.fixture(scope="module")
def ended(shell: Shell) -> Shell:
    done = shell.run("start", "long", "--id", "long-1", "--input", "-", "--wait", input=json.dumps({"value": VALUE}))
    assert (done.returncode, len(done.stdout)) == (0, 2 * LONG + 1), done.stderr
    return shell


def test_the_result_is_printed_whole(ended: Shell) -> None:
    assert ended.run("result", "long-1").stdout == VALUE * 2 + "\n"
    assert ended.lines("result", "long-1") == [{"id": "long-1", "result": VALUE * 2}]


def test_show_says_how_long_they_are_and_has_them_for_programs(ended: Shell) -> None:
    shown = ended.run("show", "long-1").stdout
    assert f"{LONG + len(json.dumps({'value': ''}, separators=(',', ':'))):,} bytes, stored aside (SHA-256 " in shown
    assert "200,002 bytes, stored aside (SHA-256 " in shown
    assert VALUE[:100] not in shown
    (view,) = ended.lines("show", "long-1")
    assert (view["input"], view["result"]) == ({"value": VALUE}, VALUE * 2)
    assert (view["input_blob"]["size"], view["result_blob"]["size"]) == (LONG + 12, 2 * LONG + 2)


def test_the_log_names_them(ended: Shell) -> None:
    text = ended.run("log", "long-1").stdout
    assert "double  200,002 bytes, stored aside (SHA-256 " in text
    events = {event["type"]: event for event in ended.lines("log", "long-1")}
    blob = events["CheckpointSaved"]["data"]["blob"]
    assert blob == events["InstanceCompleted"]["data"]["blob"]
    assert blob["size"] == 2 * LONG + 2
    assert max(len(json.dumps(event)) for event in events.values()) < 1_000


def test_an_export_has_the_references(ended: Shell) -> None:
    done = ended.run("audit", "export", "--instance", "long-1")
    assert (done.returncode, len(done.stdout) < 20_000, done.stdout.count('"blob":{"hash"')) == (0, True, 3)


@pytest.mark.usefixtures("ended")
async def test_a_damaged_value_is_a_clear_error_for_result_show_and_verify(ended: Shell) -> None:
    hash = ended.lines("show", "long-1")[0]["result_blob"]["hash"]
    await tamper(ended, f"UPDATE blobs SET hash = 'moved' WHERE hash = '{hash}'")
    try:
        done = ended.run("result", "long-1")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(
            "error: the value of 'result' of long-1 is gone (nothing is stored under this hash"
        )
        assert hash in done.stderr
        done = ended.run("show", "long-1", "--json")
        assert (done.returncode, json.loads(done.stdout)["result"]) == (1, None)
        assert json.loads(done.stderr)["error"]["code"] == "BlobMissing"
        assert ended.run("show", "long-1").returncode == 0
        done = ended.run("audit", "verify")
        assert done.returncode == 1
        assert f"default/long-1 version 4: the value of key 'double' is missing (SHA-256 {hash})" in done.stdout
    finally:
        await tamper(ended, f"UPDATE blobs SET hash = '{hash}' WHERE hash = 'moved'")
    assert ended.run("audit", "verify").returncode == 0
