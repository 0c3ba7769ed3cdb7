"""A Docker Engine that is stopped and comes back. It is one of the test's own: others use the machine's."""

import gc
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.sdk.client import Client
from tests.launching.conftest import FLOWS, Containers, until_recorded
from tests.support import containers
from tests.support.polling import eventually
from tests.support.proxy import proxy_of
from tests.support.servers import data_folder

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(240)]

NETWORK: Final = f"rt-{secrets.token_hex(3)}"  # also what the names of its links begin with
OUTSIDE, INSIDE = "192.168.213.1", "192.168.213.2"


class OwnEngine:
    """In a network namespace of its own: a second engine in the machine's would take its `docker0` away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/engine.sock"

    def start(self) -> None:
        folder = self._folder
        command = [
            "nsenter", f"--net=/run/netns/{NETWORK}", "dockerd", "--data-root", f"{folder}/data",
            "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/engine.pid", "--host", self.url,
            "--bridge=none", "--iptables=false",
        ]  # fmt: skip
        with (folder / "engine.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def client(self) -> Any:
        """None as long as it does not answer."""
        if not Path(self.url.removeprefix("unix://")).exists():
            return None
        client = docker.DockerClient(self.url, timeout=60)
        try:
            client.ping()
        except (docker.errors.DockerException, OSError):
            client.close()
            return None
        return client.api


@pytest.fixture
async def own_engine() -> AsyncIterator[OwnEngine]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "ip", "nsenter"))):
        pytest.skip("an engine of one's own needs root, dockerd, ip and nsenter")
    _run(f"ip netns add {NETWORK}")
    try:
        _run(f"ip link add {NETWORK}-out type veth peer name {NETWORK}-in")
        _run(f"ip link set {NETWORK}-in netns {NETWORK}")
        _run(f"ip addr add {OUTSIDE}/24 dev {NETWORK}-out")
        _run(f"ip link set {NETWORK}-out up")
        _run(f"ip -n {NETWORK} addr add {INSIDE}/24 dev {NETWORK}-in")
        _run(f"ip -n {NETWORK} link set {NETWORK}-in up")
        with data_folder() as folder:
            engine = OwnEngine(folder)
            engine.start()
            try:
                yield engine
            finally:
                engine.stop()
    finally:
        _run(f"ip link del {NETWORK}-out")
        _run(f"ip netns del {NETWORK}")
        gc.collect()  # see below


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


# The package `docker` does not close a socket that could not be connected; the collector does.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_an_engine_that_is_restarted_costs_no_step(
    own_engine: OwnEngine, deployed: Settings, engine: Engine, client: Client, stack: AsyncExitStack,
    docker_engine: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    api = await eventually(own_engine.client, within=40, what="the test's own engine")
    image = containers.build_image(FLOWS)
    api.load_image(b"".join(docker_engine.get_image(image)))
    monkeypatch.setenv("DOCKER_HOST", own_engine.url)
    proxy = await stack.enter_async_context(proxy_of(deployed.require_nats_url(), host=OUTSIDE))
    settings = replace(deployed, runner_name=deployed.deployment, nats_url_inside=proxy.url)
    boxes = Containers(settings, stack, image, api)
    runner = await boxes.runner(image={"network": "host"})
    handle = await client.start("count", {"steps": 100, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    own_engine.stop()
    own_engine.start()
    lives = await handle.result(timeout=120)
    assert len(lives) == 100
    assert len(set(lives)) == 2

    def left() -> bool:
        found = [(one["State"], one["Status"]) for one in boxes.all()]
        assert (runner.jobs, found) == ([], [])
        return True

    assert await eventually(left, within=40)
    api.close()
