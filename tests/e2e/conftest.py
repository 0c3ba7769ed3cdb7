"""A platform for each test: a deployment of its own on the session's servers, an engine in this process, and
workers as processes of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.platform import deploy

FLOWS = str(Path(__file__).with_name("flows.py"))


@pytest.fixture
async def deployed(settings: Settings) -> Settings:
    """The settings of a deployment that exists."""
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


@pytest.fixture
def make_pool(deployed: Settings) -> Callable[..., Pool]:
    def make(*, processes: int = 1) -> Pool:
        return Pool(deployed, [FLOWS], processes=processes)

    return make


@pytest.fixture
async def pool(make_pool: Callable[..., Pool], engine: Engine, stack: AsyncExitStack) -> Pool:
    return await stack.enter_async_context(make_pool())
