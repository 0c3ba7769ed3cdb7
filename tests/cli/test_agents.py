"""`runtara agents`, as a person types it: no platform runs, and none is needed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runtara.agents.registry import registry
from runtara.cli.app import app

SECRET = "s3cr3t-t0ken"


class Place:
    """Where nothing of the platform is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNTARA_")}

    def run(self, *arguments: str, input: str | None = None, code: str = "") -> "subprocess.CompletedProcess[str]":
        """`code` (of Python, begun by `; `) runs before the command does."""
        program = f"import sys{code}; from runtara.cli.__main__ import main; sys.argv[0] = 'runtara'; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=self.folder, env=self.environ, input=input,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def file(self, document: object) -> str:
        (self.folder / "connection.json").write_text(json.dumps(document))
        return "connection.json"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def server() -> Iterator[str]:
    """Answers with what it was sent."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"path": self.path, "login": self.headers.get("authorization")}).encode()
            self.send_response(200 if self.path != "/gone" else 410)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_all_agents_are_listed(place: Place) -> None:
    done = place.run("agents", "list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(registry().ids())
    entries = [json.loads(line) for line in place.run("agents", "list", "--json").stdout.splitlines()]
    assert [entry["id"] for entry in entries] == list(registry().ids())


def test_an_agent_and_its_capability_are_shown(place: Place) -> None:
    assert "http-request" in place.run("agents", "show", "http").stdout
    shown = place.run("agents", "show", "http", "request").stdout
    for word in ("url", "required", "GET, POST", "http_bearer", "HTTP_429", '"json"', "30000"):
        assert word in shown
    entry = json.loads(place.run("agents", "show", "http", "http-request", "--json").stdout)
    assert (entry["agent"], entry["inputSchema"]["required"]) == ("http", ["url"])


@pytest.mark.parametrize("source", ["argument", "file", "standard input"])
def test_a_capability_is_tried(place: Place, source: str) -> None:
    inputs = '{"value": {"n": [1, null, "ü"]}}'
    (place.folder / "in.json").write_text(inputs)
    given = {"argument": inputs, "file": "@in.json", "standard input": "-"}[source]
    done = place.run("agents", "test", "utils", "return-input", "--input", given, input=inputs)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"n": [1, None, "ü"]}), done.stderr


def test_a_connection_comes_from_a_file_and_shows_nowhere(place: Place, server: str) -> None:
    place.environ["RUNTARA_HTTP_ALLOW_PRIVATE"] = "127.0.0.1"
    file = place.file({"type": "http_bearer", "token": SECRET, "base_url": server})
    command = ("agents", "test", "http", "http-request", "--connection-file", file)
    done = place.run(*command, "--input", '{"url": "/orders"}')
    assert json.loads(done.stdout)["body"] == {"path": "/orders", "login": f"Bearer {SECRET}"}, done.stderr

    gone = place.run(*command, "--input", '{"url": "/gone"}', "--json")
    error = json.loads(gone.stderr)["error"]
    assert (gone.returncode, error["attributes"]["code"], gone.stdout) == (1, "HTTP_4XX", "")
    assert SECRET not in gone.stderr


def test_private_addresses_are_refused_here_too(place: Place, server: str) -> None:
    done = place.run("agents", "test", "http", "http-request", "--input", json.dumps({"url": server}))
    assert (done.returncode, "RUNTARA_HTTP_ALLOW_PRIVATE" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["show", "htp"], 3, "did you mean 'http'"),
        (["show", "http", "http-reqest"], 3, "did you mean 'http-request'"),
        (["test", "htp", "x"], 3, "did you mean 'http'"),
        (["test", "csv", "from-csv"], 2, "needs 'data'"),
        (["test", "utils", "return-input", "--input", "{"], 2, "not JSON"),
        (["test", "utils", "return-input", "--input", "[1]"], 2, "one JSON object"),
        (["test", "http", "http-request", "--input", '{"urll": 1}'], 2, "did you mean 'url'"),
        (["test", "http", "http-request", "--input", '{"url": "x", "timeout_ms": "long"}'], 2, "timeout_ms"),
        (["test", "sftp", "sftp-list-files", "--input", '{"path": "/"}'], 2, "--connection-file"),
        (
            ["test", "sftp", "sftp-list-files", "--input", '{"path": "/"}', "--connection-file", "none.json"],
            2,
            "none.json",
        ),
        (["test", "utils", "delay-in-ms", "--input", '{"delay_value": 60000}', "--timeout", "0.05"], 1, "STEP_TIMEOUT"),
        (["test", "utils", "return-input", "--input", "-", "--connection-file", "-"], 2, "not both"),
        (["test"], 2, "AGENT"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments: list[str], code: int, told: str) -> None:
    done = CliRunner().invoke(app, ["agents", *arguments])
    assert (done.exit_code, told in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"type": "http_bearer", "tokn": SECRET}, "tokn"),
        ({"token": SECRET}, "name its `type`"),
        ({"type": "sftp", "host": "h", "username": "u", "password": SECRET}, "not a Sftp"),
        ([SECRET], "one JSON object"),
    ],
)
def test_a_connection_that_does_not_fit_is_a_mistake_of_the_callers(
    tmp_path: Path, document: object, told: str
) -> None:
    file = tmp_path / "connection.json"
    file.write_text(json.dumps(document))
    arguments = ["test", "http", "http-request", "--input", '{"url": "a"}', "--connection-file", str(file)]
    done = CliRunner().invoke(app, ["agents", *arguments])
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr
    assert SECRET not in done.stderr


def test_a_broken_agent_of_another_package_disturbs_no_other(place: Place) -> None:
    info = place.folder / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[runtara.agents]\nbroken = no_such_module:Broken\n")
    place.environ["PYTHONPATH"] = str(place.folder)
    done = place.run("agents", "list")
    assert (done.returncode, "http" in done.stdout) == (0, True)
    assert "agent broken cannot be used: no_such_module:Broken of package broken" in done.stderr


def test_without_the_extra_it_says_what_to_install(place: Place) -> None:
    done = place.run("agents", "list", code="; sys.modules['lxml'] = None")
    assert (done.returncode, done.stderr) == (
        5,
        "error: this needs the extra 'agents': pip install 'runtara[agents]'\n",
    )


def test_names_are_completed(place: Place) -> None:
    place.environ |= {"_RUNTARA_COMPLETE": "complete_bash", "COMP_WORDS": "runtara agents show ht", "COMP_CWORD": "3"}
    assert "http" in place.run().stdout.split()
    place.environ |= {"COMP_WORDS": "runtara agents test sftp sftp-d", "COMP_CWORD": "4"}
    assert set(place.run().stdout.split()) == {"sftp-download-file", "sftp-delete-file"}
