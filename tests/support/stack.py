"""A project of the compose file, as an operator has it: `up`, commands within it, and a command line on the host."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from runtara.runner.images.docker_engine import DockerEngine

from . import platform_image, server_images
from .require import require

FOLDER: Final = Path(__file__).parents[2] / "compose"
CLUSTER: Final = "docker-compose.cluster.yml"
UP_SECONDS: Final = 120


def composer() -> list[str] | None:
    """`docker compose`, or the docker-compose of old."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def no_compose() -> str | None:
    return None if composer() is not None else "neither `docker compose` nor docker-compose is here"


def ensure_images(engine: DockerEngine) -> dict[str, str]:
    """Of the servers and of the platform, by what names them in `.env`; skips where compose is missing.

    By id: another working tree's tests may give their own the same names meanwhile.
    """
    require("docker", no_compose)
    return {
        "NATS_IMAGE": server_images.ensure_nats(engine),
        "POSTGRES_IMAGE": server_images.ensure_postgres(engine),
        "RUNTARA_IMAGE": platform_image.ensure_platform(engine).id,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Stack:
    """A project of its own. `overrides`: compose files on top of the one; `servers`: how many of NATS."""

    def __init__(self, folder: Path, images: dict[str, str], *overrides: str, servers: int = 1) -> None:
        self.folder = folder
        self.project = f"runtara-test-{secrets.token_hex(4)}"
        self._files = ["docker-compose.yml", *overrides]
        ports = [free_port() for _ in range(servers)]
        listen = {f"NATS_LISTEN{f'_{n}' if n > 1 else ''}": f"127.0.0.1:{port}" for n, port in enumerate(ports, 1)}
        variables = {
            "POSTGRES_PASSWORD": f"p{secrets.token_hex(8)}",
            "NATS_CLUSTER_PASSWORD": f"c{secrets.token_hex(8)}",
            "BUS_NETWORK": f"{self.project}-bus",
            **listen,
            **images,
        }
        (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        self._environ = {**os.environ, "RUNTARA_NATS_URL": ",".join(f"nats://127.0.0.1:{port}" for port in ports)}

    def command(self, *arguments: str) -> list[str]:
        command = composer()
        assert command is not None
        files = [word for file in self._files for word in ("-f", str(FOLDER / file))]
        return [*command, "-p", self.project, *files, "--env-file", str(self.folder / "env"), *arguments]

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shell(self, script: str) -> None:
        """Commands as a page shows them, for this project; files come to lie in its folder."""
        script = script.replace("docker compose", " ".join(self.command()))
        done = subprocess.run(
            ["sh", "-euc", script], cwd=self.folder, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def up(self, *profiles: str) -> None:
        self.compose(*(word for name in profiles for word in ("--profile", name)), "up", "-d", "--no-build")

    def down(self) -> None:
        self.compose("--profile", "runner", "down", "--volumes", "--timeout", "5")

    def operator(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The documented way to use the deployment's keys."""
        words = self.command("run", "--rm", "-T", "operator", *arguments)
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def has_credentials(self) -> bool:
        """Whether the host has a client's and a worker's credential, made as the README says."""
        for kind in ("client", "runner"):
            made = self.operator("credential", "create", "--kind", kind, "--out", "-")
            if made.returncode != 0:
                return False
            (self.folder / f"{kind}.creds").write_text(made.stdout)
        return True

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

    def worker(self, target: str) -> "subprocess.Popen[str]":
        """`runtara worker` on the host, ready."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "runtara.cli", "worker", target], cwd=self.folder, env=self._as("runner"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("ready")
        return worker

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of a client on the host."""
        command = [sys.executable, "-m", "runtara.cli", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self._as("client"), capture_output=True, text=True, timeout=60, check=False
        )

    def _as(self, kind: str) -> dict[str, str]:
        return {**self._environ, "RUNTARA_NATS_CREDENTIALS": str(self.folder / f"{kind}.creds")}


def end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    process.communicate(timeout=30)
