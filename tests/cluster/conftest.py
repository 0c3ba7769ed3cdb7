"""A stand-in cluster, and a platform whose runner makes Jobs in it."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.api import EventView
from runtara.protocol.records import Image
from runtara.runner.cluster.access import Access, find_access
from runtara.runner.cluster.api import ApiServer
from runtara.runner.kinds import kubernetes_runner
from runtara.runner.runner import Runner
from runtara.sdk.client import Client
from runtara.sdk.discovery import load
from tests.support.cluster.admission import rules_of
from tests.support.cluster.server import Cluster
from tests.support.cluster.store import Object
from tests.support.platform import deploy
from tests.support.polling import eventually

FLOWS: Final = Path(__file__).parents[1] / "launching" / "flows.py"
MANIFESTS: Final = Path(__file__).parents[2] / "compose" / "kubernetes"
IMAGE: Final = "registry.example/flows@sha256:" + "0" * 64


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1 that vouches for itself."""
    folder = tmp_path_factory.mktemp("authority")
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests need openssl"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "ca.crt", "-days", "2",
         "-subj", "/CN=stand-in", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
async def cluster(tmp_path: Path, authority: Path) -> AsyncIterator[Cluster]:
    """With the rights that our own manifest grants to the runner."""
    made = Cluster(tmp_path, rules_of([MANIFESTS / "base" / "runner.yaml"], "runner"), authority)
    async with made.running():
        yield made


@pytest.fixture
def access(cluster: Cluster) -> Access:
    return find_access(environ={"KUBECONFIG": str(cluster.kubeconfig())})


@pytest.fixture
async def api(access: Access) -> AsyncIterator[ApiServer]:
    async with ApiServer(access) as api:
        yield api


class Jobs:
    """A platform whose runner makes Jobs."""

    def __init__(self, settings: Settings, cluster: Cluster, client: Client, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.cluster = cluster
        self.client = client
        self._stack = stack

    async def runner(self, *, image: dict[str, Any] | None = None, restarts: int = 5, **settings: Any) -> Runner:
        await self.register(restarts=restarts, **(image or {}))
        return await self._stack.enter_async_context(kubernetes_runner(replace(self.settings, **settings)))

    async def register(self, *, restarts: int = 5, **fields: Any) -> None:
        """All workflows, with an image like this."""
        image = Image(**{"name": "flows", "version": 1, "reference": IMAGE, **fields})
        registrations = []
        for workflow in load([str(FLOWS)]).workflows:
            one = workflow.registration(code_version="1", kind="kubernetes")
            options = msgspec.structs.replace(one.options, restarts=restarts)
            registrations.append(msgspec.structs.replace(one, options=options))
        await self.client.images.register(image, registrations)

    async def process(self) -> asyncio.subprocess.Process:
        """`runtara runner` as a process of its own, ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runtara.cli", "runner", "--kind", "kubernetes",
            env={**os.environ, **self.settings.to_environ()}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._stack.push_async_callback(_ended, process)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).startswith(b"ready runner")
        return process

    async def pod(self, instance: str, *, phase: str = "Running") -> Object:
        def one() -> list[Object]:
            pod = self.cluster.pod_of(instance)
            return [pod] if pod is not None and pod["status"]["phase"] == phase else []

        found: list[Object] = await eventually(one, within=30, what=f"a pod of {instance} that is {phase}")
        return found[0]

    async def none_left(self) -> None:
        """Nothing of ours is in the cluster any more, but what people made."""

        def is_empty() -> bool:
            left = [one for plural in ("jobs", "pods") for one in self.cluster.store.all(plural)]
            secrets = [
                one for one in self.cluster.store.all("secrets") if one["metadata"]["name"].startswith("runtara-")
            ]
            return not left and not secrets

        await eventually(is_empty, within=20, what="an empty cluster")

    async def events(self, instance: str, type: str) -> list[EventView]:
        return [event async for event in self.client.history(instance) if event.type == type]

    async def losses(self, instance: str, *, at_least: int = 1) -> list[dict[str, Any]]:
        """What the log says of attempts that were lost."""

        async def some() -> list[dict[str, Any]]:
            found = [msgspec.json.decode(event.data) for event in await self.events(instance, "AttemptLost")]
            return found if len(found) >= at_least else []

        found: list[dict[str, Any]] = await eventually(some, within=30, what=f"{at_least} lost attempts of {instance}")
        return found

    async def recorded(self, instance: str, key: str) -> None:
        async def is_there() -> bool:
            return any([event.key == key async for event in self.client.history(instance)])

        await eventually(is_there, within=30, what=f"{key} of {instance}")


@pytest.fixture
async def jobs(
    settings: Settings, cluster: Cluster, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Jobs]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig()))
    cluster.kubelet.images[IMAGE] = [sys.executable, "-m", "runtara.sdk.run", str(FLOWS)]
    settings = replace(settings, drain_seconds=1.0, slots=4)
    await deploy(settings)
    async with Engine(settings), Client(settings) as client:
        yield Jobs(settings, cluster, client, stack)
        await stack.aclose()


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()
