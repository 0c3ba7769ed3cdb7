"""A whole platform of the test's own, in processes that can be killed: servers, engines, workers."""

import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.compose.embedded import EmbeddedServers
from runtara.infra.settings import Settings
from tests.support.platform import deploy
from tests.support.servers import data_folder


@pytest.fixture
def chance() -> random.Random:
    """Randomness that a failed test can be given again: set RUNTARA_TEST_SEED to what it printed."""
    seed = os.environ.get("RUNTARA_TEST_SEED") or secrets.token_hex(4)
    print(f"RUNTARA_TEST_SEED={seed}")  # noqa: T201  # pytest shows it with a failure
    return random.Random(seed)


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder / "data"


@pytest.fixture
async def own_servers(data: Path) -> AsyncIterator[EmbeddedServers]:
    """Servers that this test may kill; they are started again when they die."""
    async with EmbeddedServers(data) as servers:
        yield servers


@pytest.fixture
async def site(own_servers: EmbeddedServers, deployment: str) -> Settings:
    """The settings of a deployment on servers of the test's own; without an engine."""
    settings = Settings(
        deployment=deployment,
        nats_url=own_servers.nats_url,
        nats_keys=str(own_servers.nats_keys),
        database_url=own_servers.database_url,
        journal_max_bytes=64 * 1024 * 1024,
    )
    await deploy(settings)
    return settings


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
