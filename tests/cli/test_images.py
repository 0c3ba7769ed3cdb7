"""`runtara image`, as an operator types it: with a real Docker Engine, against a real `runtara dev`."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.runner.images.docker_engine import DockerEngine
from tests.cli.conftest import Shell
from tests.support.images import base, docker_engine, wheels

__all__ = ["base", "docker_engine", "wheels"]

NOWHERE = "unix:///nowhere/docker.sock"


def without_docker(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "runtara.cli", *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "DOCKER_HOST": NOWHERE},
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(shell: Shell, docker_engine: DockerEngine, base: str, wheels: Path) -> Iterator[str]:
    """An image of a flow that is in no worker's file, built by the command."""
    (shell.folder / "boxed.py").write_text(
        "from runtara.sdk import Context, workflow\n\n\n@workflow(restarts=2)\n"
        'async def boxed(ctx: Context, name: str) -> str:\n    """In a box."""\n    return name\n'
    )
    tag = f"runtara-test-{secrets.token_hex(4)}:1"
    done = shell.run("image", "build", "boxed.py", "-t", tag, "--base", base, "--wheelhouse", str(wheels))
    assert done.returncode == 0, done.stderr
    assert "step 1/" in done.stderr
    assert "hosts  boxed" in done.stdout
    assert f"above {base}" in done.stdout
    yield tag
    docker_engine.remove(tag)


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_is_registered_tested_started_and_deleted(
    shell: Shell, built: str, docker_engine: DockerEngine
) -> None:
    """The whole way, with what its label says and no --workflow."""
    limits = ["--memory", "256m", "--cpus", "0.5", "--pids", "64", "--timeout", "1h", "--network", "bridge"]
    rest = ["--env", "REGION=eu=west", "--secret", "api-key", "--isolation", "instance"]
    (registered,) = shell.lines("image", "register", "boxed", built, *limits, *rest)
    found = docker_engine.require(built, "")
    expected = {
        "name": "boxed", "version": 1, "reference": found.id, "memory_bytes": 256 * 1024**2, "cpus": 0.5, "pids": 64,
        "timeout_us": 3_600_000_000, "network": "bridge", "env": {"REGION": "eu=west"}, "secrets": ["api-key"],
        "isolation": "instance", "hosts": ["boxed"], "used_by": ["boxed"], "created": True,
    }  # fmt: skip
    assert {name: registered[name] for name in expected} == expected
    (again,) = shell.lines("image", "register", "boxed", built, *limits, *rest)
    assert (again["version"], again["created"]) == (1, False)

    (tested,) = shell.lines("image", "test", "boxed")
    assert (tested["hosts"], tested["problems"], tested["warnings"]) == (["boxed"], [], [])
    assert tested["start_seconds"] > 0
    assert tested["size"] == found.size

    workflow = next(line for line in shell.lines("workflow", "list") if line["id"] == "boxed")
    assert (workflow["kind"], workflow["description"]) == ("docker", "In a box.")
    assert workflow["parameters"]["required"] == ["name"]
    assert shell.run("start", "boxed", "--id", "b-1", "--input", '{"name": "a"}').returncode == 0
    created = shell.lines("log", "b-1")[0]["data"]["options"]
    assert (created["runner"], created["restarts"], created["image"]["reference"]) == ("docker", 2, found.id)

    assert "boxed@1  " in shell.run("image", "show", "boxed").stdout
    in_use = shell.run("image", "delete", "boxed", "--yes")
    assert (in_use.returncode, "workflow boxed, instance b-1" in in_use.stderr) == (4, True), in_use.stderr
    assert shell.run("cancel", "b-1").returncode == 0
    assert shell.run("workflow", "delete", "boxed", "--yes").returncode == 0
    assert shell.run("start", "boxed").returncode == 3  # its answer comes behind the removal
    assert shell.lines("image", "delete", "boxed@1", "--yes") == [{"name": "boxed", "version": 1}]
    assert shell.lines("image", "list") == []
    assert shell.run("image", "show", "boxed").returncode == 3


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_that_does_not_host_what_it_is_registered_for_fails_its_test(shell: Shell, built: str) -> None:
    wrong = shell.run("image", "register", "other", built, "--workflow", "nope")
    assert (wrong.returncode, "does not host 'nope'; it hosts boxed" in wrong.stderr) == (2, True), wrong.stderr
    shell.lines("image", "register", "other", built, "--workflow", "nope", "--as-given")
    tested = shell.run("image", "test", "other")
    assert (tested.returncode, "does not host nope" in tested.stdout) == (1, True), tested.stderr


@pytest.mark.docker
@pytest.mark.slow
def test_build_registers_what_it_built_if_told_so(shell: Shell, built: str, base: str, wheels: Path) -> None:
    """From the builder's cache."""
    command = ["image", "build", "boxed.py", "-t", built, "--base", base, "--wheelhouse", str(wheels), "--register"]
    (document,) = shell.lines(*command)
    assert (document["workflows"], document["image"]) == (["boxed"], built)
    assert 0 < document["added"] < 40_000_000
    name = built.partition(":")[0]
    assert [line["reference"] for line in shell.lines("image", "list") if line["name"] == name] == [document["id"]]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["image", "build", "boxed.py", "-t", "x:1", "--base", "nothing-of-the-kind:9"], 3, "docker pull nothing-of"),
        (["image", "build", "nowhere.py", "-t", "x:1"], 2, "there is no such file"),
        (["image", "register", "a", "nothing-of-the-kind:9"], 3, "no registry has it"),
    ],
)
@pytest.mark.usefixtures("built")
def test_what_cannot_be_found_is_said(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_without_a_docker_engine_a_reference_is_kept_as_it_is_given(shell: Shell) -> None:
    done = without_docker(shell.folder, "image", "register", "later", "registry.example/later:1", "--json")
    assert done.returncode == 0, done.stderr
    assert "kept as given" in done.stderr
    document = json.loads(done.stdout)
    assert (document["reference"], document["hosts"]) == ("registry.example/later:1", ["later"])
    for command in (["build", "flows.py", "-t", "x:1"], ["test", "later"]):
        refused = without_docker(shell.folder, "image", *command)
        assert (refused.returncode, "DOCKER_HOST" in refused.stderr) == (5, True), refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "256q"], "not a size like 256m"),
        (["--memory", "1k"], "at least 6 MiB"),
        (["--memory=-1m"], "not a size like 256m"),
        (["--cpus=-0.5"], "number of cores"),
        (["--cpus", "nan"], "number of cores"),
        (["--pids", "0"], "at least 1"),
        (["--timeout", "1 hour"], "not an age"),
        (["--timeout", "0s"], "longer than nothing"),
        (["--network", "everywhere"], "everywhere"),
        (["--env", "NOVALUE"], "not K=V"),
        (["--env", "RUNTARA_TENANT=other"], "the platform's own"),
        (["--env", "A B=c"], "no name of an environment variable"),
        ([part for n in range(65) for part in ("--env", f"V{n}=x")], "the limit is 64"),
        (["--secret", "../passwd"], "no name of a secret"),
        (["--workflow", "a.b"], "not a legal workflow"),
    ],
)
def test_a_bad_option_is_a_clear_error_and_nothing_is_registered(shell: Shell, options: list[str], words: str) -> None:
    done = shell.run("image", "register", "never", "never:1", "--as-given", *options)
    assert (done.returncode, words in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert shell.run("image", "show", "never").returncode == 3


def test_images_of_another_tenant_are_not_seen(shell: Shell) -> None:
    shell.lines("image", "register", "theirs", "theirs:1", "--as-given", "--tenant", "other")
    assert [line["name"] for line in shell.lines("image", "list", "--tenant", "other")] == ["theirs"]
    assert "theirs" not in [line["name"] for line in shell.lines("image", "list")]
    assert shell.run("image", "delete", "theirs", "--yes").returncode == 3


@pytest.mark.parametrize("name", ["later@0", "later@x", "later@"])
def test_a_version_is_a_number(shell: Shell, name: str) -> None:
    done = shell.run("image", "delete", name, "--yes")
    assert (done.returncode, "is no version" in done.stderr) == (2, True), done.stderr
