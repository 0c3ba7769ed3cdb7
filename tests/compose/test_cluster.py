"""Three NATS servers: a journal with three replicas outlives the death of any one of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.runner.images.docker_engine import DockerEngine
from tests.compose.evidence import Tally
from tests.support.images import docker_engine
from tests.support.polling import eventually
from tests.support.stack import CLUSTER, UP_SECONDS, Stack, end, ensure_images

__all__ = ["docker_engine"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
SERVERS = ("nats", "nats-2", "nats-3")


@pytest.fixture(scope="module")
def stack(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    images = ensure_images(docker_engine)
    stack = Stack(tmp_path_factory.mktemp("cluster"), images, CLUSTER, servers=len(SERVERS))
    shutil.copy(Path(__file__).with_name("tally.py"), stack.folder)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


async def test_work_goes_on_when_each_server_in_turn_is_killed(stack: Stack) -> None:
    """One of them leads each journal, so one of the three kills takes its leader; each comes back before the next."""
    await eventually(stack.has_credentials, within=UP_SECONDS)
    worker = stack.worker("tally.py")
    try:
        for server in SERVERS:
            await killed_while_it_works(stack, server)
    finally:
        end(worker)
    for verdict in ("verify", "replay"):
        told = stack.operator("audit", verdict)
        assert told.returncode == 0, told.stdout + told.stderr


async def killed_while_it_works(stack: Stack, server: str) -> None:
    tally = Tally(stack, server)
    await eventually(tally.start, within=60)
    await eventually(lambda: tally.done() > 20, within=60, what="some steps")
    stack.docker("kill", server)
    await tally.finish(repeated=1)
    stack.up()
    await eventually(lambda: stack.health(server) == "healthy", within=UP_SECONDS)
