"""A deployment of the test's own, an engine in this process, and a peer that speaks the wire by hand."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from runtara.engine import watch
from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.projections import leases
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running


@pytest.fixture
def partitions() -> int:
    """Parametrize it for more."""
    return 1


@pytest.fixture
async def deployed(settings: Settings, partitions: int) -> Settings:
    """The settings of a deployment that exists, without an engine."""
    settings = dataclasses.replace(settings, partitions=partitions)
    await deploy(settings)
    return settings


@pytest.fixture
async def engine(deployed: Settings) -> AsyncIterator[Engine]:
    async with running(deployed) as engine:
        yield engine


@pytest.fixture
async def peer(deployed: Settings) -> AsyncIterator[Peer]:
    """A peer of tenant `default`; the deployment may or may not have an engine."""
    async with connect_peer(deployed) as peer:
        yield peer


@pytest.fixture
async def platform(engine: Engine, peer: Peer) -> Peer:
    """A peer of a deployment with an engine, where the workflow `wf` is registered."""
    await peer.register("wf")
    return peer


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an owner does by the clock, done every few moments: leases of 0.3 s, sweeps every 0.2 s."""
    monkeypatch.setattr(watch, "TICK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 3)
