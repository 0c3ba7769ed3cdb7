"""`runtara connections`, as an operator types it, against a real `runtara dev`: no secret is ever shown."""

import json
import os
import pty
import select
import stat
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.cli.conftest import Shell

SECRET = "tr0ub4dor-and-3"


def shows_no_secret(done: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str]":
    assert SECRET not in done.stdout + done.stderr
    return done


def test_fields_come_from_the_command_line_a_file_or_standard_input(shell: Shell) -> None:
    (shell.folder / "crm.json").write_text(json.dumps({"token": SECRET, "base_url": "https://crm.example"}))
    (shell.folder / "id").write_text(SECRET)
    set_ = ("connections", "set")
    ways = {
        "by-file": ([*set_, "by-file", "--type", "http_bearer", "--file", "crm.json"], None),
        "by-stdin": ([*set_, "by-stdin", "-", "--type", "http_bearer"], json.dumps({"token": SECRET})),
        "by-field": (
            [*set_, "by-field", "--type", "sftp", "--field", "host=h", "--field", "username=u", "--field", "port=2222",
             "--field", "private_key=@id"], None,
        ),
    }  # fmt: skip
    for name, (arguments, input) in ways.items():
        done = shows_no_secret(shell.run(*arguments, input=input))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert f"set {name} (" in done.stdout
    listed = shell.lines("connections", "list")
    assert [(view["name"], view["type"], view["used_by"]) for view in listed] == [
        ("by-field", "sftp", []), ("by-file", "http_bearer", []), ("by-stdin", "http_bearer", []),
    ]  # fmt: skip
    assert set(listed[0]) == {"name", "type", "used_by", "set_at", "set_by"}
    assert all(view["set_by"] for view in listed)
    assert "by-stdin" in shows_no_secret(shell.run("connections", "list")).stdout
    for name in ways:
        assert shell.lines("connections", "delete", name, "--yes") == [{"name": name}]
    assert shell.run("connections", "list").stderr == "no connections\n"


def test_a_secret_on_the_command_line_is_warned_of(shell: Shell) -> None:
    done = shell.run("connections", "set", "loud", "--type", "http_bearer", "--field", f"token={SECRET}", "--json")
    assert done.returncode == 0
    assert "token was on the command line" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    shell.run("connections", "delete", "loud", "--yes")


@pytest.mark.parametrize(
    ("arguments", "input", "code", "says"),
    [
        (["--type", "http_bearer"], "", 2, "token: Field required"),
        (["--type", "http_bearer", "-"], SECRET, 2, "give a JSON object"),
        (["--type", "http_bearer", "-"], f'{{"tokn": "{SECRET}"}}', 2, "tokn: Extra inputs are not permitted"),
        (["--type", "http_bearer", "--file", "nowhere.json"], None, 2, "nowhere.json cannot be read"),
        (["--type", "http_bearer", "--field", "token"], None, 2, "no terminal to ask at"),
        (["--type", "htp_bearer", "-"], f'{{"token": "{SECRET}"}}', 2, "types known here are http_api_key"),
        (["--type", "sftp", "-"], f'{{"host": "h", "username": "u", "port": "{SECRET}"}}', 2, "port: "),
        (["--type", "http_bearer", "x"], None, 2, "standard input"),
        ([], None, 2, "--type"),
    ],
)
def test_what_is_wrong_is_said_without_a_value(
    shell: Shell, arguments: list[str], input: str | None, code: int, says: str
) -> None:
    done = shows_no_secret(shell.run("connections", "set", "crm", *arguments, input=input or ""))
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())


def test_a_type_of_agents_that_are_elsewhere_is_kept_as_it_is_given(shell: Shell) -> None:
    typed = ["connections", "set", "own", "-", "--type", "acme_erp", "--unchecked"]
    assert shows_no_secret(shell.run(*typed, input=f'{{"key": "{SECRET}"}}')).returncode == 0
    assert [view["type"] for view in shell.lines("connections", "list")] == ["acme_erp"]
    assert shell.run("connections", "delete", "own", input="y\n").returncode == 0
    assert shell.run("connections", "delete", "own", "--yes").returncode == 3


def typed_at_a_terminal(shell: Shell, arguments: list[str], lines: list[str]) -> tuple[int, str]:
    """The exit code, and all that the terminal showed. The last line is a secret: it is typed once echo is off."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runtara.cli", *arguments]
    seen, waiting = "", list(lines)
    with subprocess.Popen(command, cwd=shell.folder, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            while True:
                ready, _, _ = select.select([ours], [], [], 0.05)
                if ready:
                    seen += os.read(ours, 4_096).decode()
                echoes = bool(termios.tcgetattr(ours)[3] & termios.ECHO)
                if waiting and seen.rstrip().endswith(":") and echoes == (len(waiting) > 1):
                    seen += "\n"
                    os.write(ours, f"{waiting.pop(0)}\n".encode())
        except OSError:  # the terminal's other end was closed
            pass
        finally:
            os.close(ours)
    return process.returncode, seen


@pytest.mark.parametrize(
    ("name", "arguments", "lines"),
    [("asked", ["--field", "token"], [SECRET]), ("all-asked", [], ["https://crm.example", SECRET])],
)
def test_at_a_terminal_secrets_are_asked_for_and_not_echoed(
    shell: Shell, name: str, arguments: list[str], lines: list[str]
) -> None:
    code, seen = typed_at_a_terminal(
        shell, ["connections", "set", name, "--type", "http_bearer", *arguments], lines
    )  # fmt: skip
    assert code == 0, seen
    assert f"set {name} (http_bearer)" in seen
    assert SECRET not in seen
    shell.run("connections", "delete", name, "--yes")


def test_types_are_listed_with_their_fields(shell: Shell) -> None:
    types = {
        one["type"]: {field["name"]: field for field in one["fields"]} for one in shell.lines("connections", "types")
    }
    assert {"http_bearer", "http_api_key", "http_basic", "sftp"} <= set(types)
    assert types["sftp"]["port"]["default"] == 22
    assert (types["http_bearer"]["token"]["secret"], types["http_bearer"]["token"]["required"]) == (True, True)
    assert "X-API-Key" in shell.run("connections", "types").stdout


def test_rotating_puts_a_new_key_first_and_seals_everything_with_it(shell: Shell) -> None:
    shell.run("connections", "set", "crm", "-", "--type", "http_bearer", input=f'{{"token": "{SECRET}"}}')
    (done,) = shell.lines("connections", "rotate")
    assert done["sealed"] == 1
    file = Path(done["file"])
    assert len(file.read_text().split()) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = shell.run("connections", "rotate")
    assert again.stdout.startswith("sealed 1 connection with key "), again.stderr
    assert len(file.read_text().split()) == 3
    shell.run("connections", "set", "crm", "-", "--type", "http_bearer", input=f'{{"token": "{SECRET}"}}')
    shell.run("connections", "delete", "crm", "--yes")
