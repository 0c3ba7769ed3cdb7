"""The compose file, as an operator uses it: up, the README's quick start against it, faults, down."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from runtara.runner.images.build import Order, build
from runtara.runner.images.docker_engine import DockerEngine
from tests.support import platform_image, server_images
from tests.support.images import EXAMPLES, base, docker_engine, tag, wheels
from tests.support.polling import eventually
from tests.support.require import require

__all__ = ["base", "docker_engine", "tag", "wheels"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]
COMPOSE: Final = Path(__file__).parents[2] / "compose" / "docker-compose.yml"
UP_SECONDS: Final = 120


def composer() -> list[str] | None:
    """`docker compose`, or the docker-compose of old."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def no_compose() -> str | None:
    return None if composer() is not None else "neither `docker compose` nor docker-compose is here"


class Stack:
    """A project of its own, and a command line that speaks to it from outside."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = folder
        self.project = f"runtara-test-{secrets.token_hex(4)}"
        self._password = f"n{secrets.token_hex(8)}"
        (folder / "env").write_text(
            f"NATS_PASSWORD={self._password}\nPOSTGRES_PASSWORD=p{secrets.token_hex(8)}\n"
            f"NATS_LISTEN=127.0.0.1:{port}\nRUNTARA_IMAGE={platform_image.TAG}\nBUS_NETWORK={self.project}-bus\n"
        )
        self._environ = {
            **os.environ,
            "RUNTARA_NATS_URL": f"nats://127.0.0.1:{port}",
            "RUNTARA_NATS_USER": "runtara",
            "RUNTARA_NATS_PASSWORD": self._password,
        }

    def compose(self, *arguments: str) -> str:
        command = composer()
        assert command is not None
        fixed = ["-p", self.project, "-f", str(COMPOSE), "--env-file", str(self.folder / "env")]
        done = subprocess.run([*command, *fixed, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service).strip()

    def docker(self, command: str, service: str) -> str:
        """`docker COMMAND`, past the compose file."""
        words = ["docker", command, self.container(service)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def inspect(self, service: str) -> dict[str, Any]:
        inspected: dict[str, Any] = json.loads(self.docker("inspect", service))[0]
        return inspected

    def state(self, service: str) -> dict[str, object]:
        if not self.container(service):
            return {}
        state: dict[str, object] = self.inspect(service)["State"]
        return state

    def health(self, service: str) -> object:
        health = self.state(service).get("Health")
        return health["Status"] if isinstance(health, dict) else None

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "runtara.cli", *arguments], cwd=self.folder, env=self._environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "runtara.cli", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self._environ, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def stack(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Images made here, then `up`, as soon as they are there."""
    require("docker", no_compose)
    server_images.ensure_nats(docker_engine)
    server_images.ensure_postgres(docker_engine)
    platform_image.ensure_platform(docker_engine)
    stack = Stack(tmp_path_factory.mktemp("stack"))
    shutil.copy(EXAMPLES / "orders.py", stack.folder)
    try:
        stack.compose("up", "-d", "--no-build")
        yield stack
    finally:
        stack.compose("--profile", "runner", "down", "--volumes", "--timeout", "5")


@pytest.fixture
def worker(stack: Stack) -> Iterator[None]:
    """On the host, as in the quick start."""
    worker = stack.start("worker", "orders.py")
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline().startswith("ready")
        yield
    finally:
        worker.terminate()
        worker.communicate(timeout=30)


async def test_it_becomes_healthy_and_serves_the_quick_start(stack: Stack) -> None:
    await eventually(lambda: {stack.health(e) for e in ("engine-1", "engine-2")} == {"healthy"}, within=UP_SECONDS)
    worker = stack.start("worker", "orders.py")
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline().startswith("ready")
        started = stack.run("start", "orders", "--id", "o-1", "--input", '{"order_ids": ["a", "b"]}')
        assert started.returncode == 0, started.stderr
        result = stack.run("result", "o-1", "--json")
        assert json.loads(result.stdout)["result"][0] == "parcel for a (receipt-a)"
        (listed,) = stack.run("list", "--json").stdout.splitlines()
        assert json.loads(listed)["status"] == "completed"
        assert "InstanceCompleted" in stack.run("log", "o-1").stdout
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    info = json.loads(stack.run("info", "--json").stdout)
    assert info["partitions"] == 4
    assert stack.state("migrate")["ExitCode"] == 0
    assert "holds" in stack.compose("exec", "-T", "engine-1", "runtara", "audit", "verify")


async def test_engines_go_on_when_either_of_them_or_a_server_is_killed(stack: Stack, worker: None) -> None:
    """`docker kill` is the hand of an operator, after which only `up` starts a container again."""
    for n, service in enumerate(("engine-1", "postgres", "nats")):
        stack.docker("kill", service)
        stack.compose("up", "-d", "--no-build")

        def completes(id: str = f"k-{n}") -> bool:
            stack.run("start", "orders", "--id", id, "--input", '{"order_ids": ["a"]}')
            return stack.run("result", id, "--timeout", "5").returncode == 0

        await eventually(completes, within=UP_SECONDS, what=f"an instance after {service} was killed")


async def test_parts_that_come_up_late_are_waited_for(stack: Stack) -> None:
    """Engines first, and nothing else there; then the servers."""
    stack.compose("stop", "--timeout", "5")
    for service in ("engine-1", "engine-2"):
        stack.docker("start", service)
    assert stack.run("info").returncode == 5
    for service in ("postgres", "nats"):
        stack.docker("start", service)
    await eventually(lambda: stack.run("info").returncode == 0, within=UP_SECONDS)


async def test_the_runner_of_the_stack_runs_an_image_in_a_container(
    stack: Stack, docker_engine: DockerEngine, base: str, wheels: Path, tag: str
) -> None:
    pytest.importorskip("runtara.runner.containers", reason="this version has no runner of containers")
    order = Order(target=str(stack.folder / "orders.py"), tag=tag, base=base, wheelhouse=wheels)
    image = build(docker_engine, order, lambda _: None).id
    stack.compose("--profile", "runner", "up", "-d", "--no-build")
    registered = stack.run("image", "register", "orders", image, "--memory", "128m")
    assert registered.returncode == 0, registered.stderr
    assert stack.run("start", "orders", "--id", "boxed", "--input", '{"order_ids": ["a"]}').returncode == 0
    await eventually(lambda: stack.run("result", "boxed", "--timeout", "5").returncode == 0, within=UP_SECONDS)
    started = [json.loads(line) for line in stack.run("log", "boxed", "--json").stdout.splitlines()]
    assert started[0]["data"]["options"]["image"]["reference"] == image


def test_containers_are_ordinary_users_with_a_read_only_root(stack: Stack) -> None:
    container = stack.inspect("engine-1")
    assert container["Config"]["User"] == "65532:65532"
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["Memory"] == 512 * 1024**2
