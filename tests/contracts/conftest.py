"""Each port's real part and its twin."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from runtara.infra.settings import Settings
from runtara.sdk.client import Client
from runtara.sdk.discovery import Code
from runtara.sdk.testing import MemoryPlatform
from runtara.sdk.worker import Worker
from runtara.sdk.workflow import Workflow
from tests.support.platform import deploy, running

from .seats import Seat, memory_seat, real_seat

Host = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(params=["memory", "real"])
async def seat(request: pytest.FixtureRequest) -> AsyncIterator[Seat]:
    if request.param == "memory":
        async with memory_seat() as seat:
            yield seat
    else:
        async with real_seat(request.getfixturevalue("settings")) as seat:
            yield seat


@asynccontextmanager
async def hosted_really(settings: Settings, *workflows: Workflow[..., Any]) -> AsyncIterator[Client]:
    """An engine and a worker in this process, and a client."""
    await deploy(settings)
    async with (
        running(settings),
        Worker(settings, Code(workflows=workflows, version="v1", files=())),
        Client(settings) as client,
    ):
        yield client


@pytest.fixture(params=["memory", "real"])
def host(request: pytest.FixtureRequest) -> Host:
    """Gives a client of a platform that hosts the workflows it is given."""
    if request.param == "memory":
        return MemoryPlatform
    settings: Settings = request.getfixturevalue("settings")
    return lambda *workflows: hosted_really(settings, *workflows)
