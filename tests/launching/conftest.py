"""A platform with a runner of one kind: the same tests for processes and for containers."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.api import EventView
from runtara.protocol.records import Image
from runtara.runner.forks import Limits
from runtara.runner.kinds import docker_runner, process_runner
from runtara.runner.runner import Runner
from runtara.sdk.client import Client, Handle
from runtara.sdk.discovery import load
from tests.support import containers
from tests.support.platform import deploy
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of

FLOWS = Path(__file__).with_name("flows.py")
LABEL = "dev.runtara.deployment"


@pytest.fixture
async def deployed(settings: Settings, tmp_path: Path) -> Settings:
    settings = replace(settings, runner_dir=str(tmp_path / "runner"), drain_seconds=3.0)
    await deploy(settings)
    return settings


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def engine(deployed: Settings, stack: AsyncExitStack) -> Engine:
    return await stack.enter_async_context(Engine(deployed))


@pytest.fixture
async def client(deployed: Settings, engine: Engine, stack: AsyncExitStack) -> Client:
    return await stack.enter_async_context(Client(deployed))


async def types_of(client: Client, instance: str) -> list[str]:
    return [event.type async for event in client.history(instance)]


async def events_of(client: Client, instance: str, type: str) -> list[EventView]:
    return [event async for event in client.history(instance) if event.type == type]


async def until_recorded(client: Client, handle: "Handle[Any]", key: str, *, within: float = 30) -> None:
    """Until the instance has recorded something under `key`."""

    async def recorded() -> bool:
        return any([event.key == key async for event in client.history(handle.id)])

    await eventually(recorded, within=within, what=f"{key} of {handle.id}")


class Processes:
    """Of the kind `process`: limits are the runner's."""

    kind = "process"

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._stack = stack

    async def runner(self, *, memory: int | None = None, timeout: float | None = None, **settings: Any) -> Runner:
        limits = Limits(memory_bytes=memory)
        made = process_runner(replace(self.settings, **settings), [str(FLOWS)], limits=limits, time_limit=timeout)
        return await self._stack.enter_async_context(made)

    def command(self) -> list[str]:
        return ["--kind", "process", str(FLOWS)]


class Containers:
    """Of the kind `docker`: limits are the images'."""

    kind = "docker"

    def __init__(
        self, settings: Settings, stack: AsyncExitStack, image: str, api: Any, flows: Path = FLOWS
    ) -> None:  # fmt: skip
        self.settings = settings
        self._flows = flows
        self._stack = stack
        self.image = image
        self.api = api

    async def runner(
        self, *, memory: int | None = None, timeout: float | None = None, image: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Runner:  # fmt: skip
        await self.register(memory_bytes=memory, timeout_us=int(timeout * 1e6) if timeout else None, **(image or {}))
        return await self.enter(docker_runner(replace(self.settings, **settings)))

    async def register(self, *workflows: str, settings: Settings | None = None, **fields: Any) -> None:
        """These workflows, or all, with an image like this."""
        image = Image(**{"name": "flows", "version": 1, "reference": self.image, **fields})
        chosen = [one for one in load([str(self._flows)]).workflows if not workflows or one.name in workflows]
        registrations = [one.registration(code_version="1", kind="docker") for one in chosen]
        async with Client(settings or self.settings) as client:
            await client.images.register(image, registrations)

    async def enter(self, runner: Runner) -> Runner:
        return await self._stack.enter_async_context(runner)

    def command(self) -> list[str]:
        return ["--kind", "docker"]

    def all(self, instance: str | None = None) -> list[dict[str, Any]]:
        """The containers of this deployment, whether they run or not."""
        labels = [f"{LABEL}={self.settings.deployment}"]
        if instance is not None:
            labels.append(f"dev.runtara.instance={instance}")
        found: list[dict[str, Any]] = self.api.containers(all=True, filters={"label": labels})
        return found

    async def running(self, instance: str) -> str:
        """The container of an instance, once it runs."""

        def one() -> str | None:
            return next((found["Id"] for found in self.all(instance) if found["State"] == "running"), None)

        return str(await eventually(one, within=30, what=f"a container of {instance}"))

    def clean_up(self) -> None:
        for found in self.all():
            self.api.remove_container(found["Id"], force=True, v=True)
        for network in self.api.networks(filters={"label": f"{LABEL}={self.settings.deployment}"}):
            self.api.remove_network(network["Id"])


@pytest.fixture
async def processes(deployed: Settings, engine: Engine, stack: AsyncExitStack) -> Processes:
    return Processes(deployed, stack)


@pytest.fixture(scope="session")
def bus_network(docker_engine: Any) -> Iterator[tuple[str, str]]:
    """(name, gateway) of an internal network that is this session's own: others may run the same tests."""
    name = f"runtara-test-{secrets.token_hex(6)}"
    docker_engine.create_network(name, driver="bridge", internal=True)
    yield name, docker_engine.inspect_network(name)["IPAM"]["Config"][0]["Gateway"]
    docker_engine.remove_network(name)


@pytest.fixture
async def network(deployed: Settings, bus_network: tuple[str, str]) -> AsyncIterator[Proxy]:
    """What is between the containers and NATS."""
    async with proxy_of(deployed.require_nats_url(), host=bus_network[1]) as proxy:
        yield proxy


@pytest.fixture
async def boxes(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, docker_engine: Any, bus_network: tuple[str, str],
    network: Proxy,
) -> AsyncIterator[Containers]:  # fmt: skip
    settings = replace(
        deployed, runner_name=deployed.deployment, bus_network=bus_network[0], nats_url_inside=network.url
    )
    made = Containers(settings, stack, containers.build_image(FLOWS), docker_engine)
    try:
        yield made
        await stack.aclose()
    finally:
        made.clean_up()


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def seat(request: pytest.FixtureRequest) -> Any:
    """A runner of each kind."""
    return request.getfixturevalue({"process": "processes", "docker": "boxes"}[request.param])


@pytest.fixture
async def runner_process(stack: AsyncExitStack) -> Callable[..., Awaitable[asyncio.subprocess.Process]]:
    """`runtara runner` as a process of its own, ready."""

    async def start(seat: Any) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runtara.cli", "runner", *seat.command(),
            env={**os.environ, **seat.settings.to_environ()}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        stack.push_async_callback(_ended, process)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).startswith(b"ready runner")
        return process

    return start


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()
