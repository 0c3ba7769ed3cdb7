"""What all tests share: real servers (one NATS and one Postgres a session, or a pytest-xdist worker) and a
deployment of its own for each test, so that tests never see each other."""

import secrets
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from runtara.infra.settings import Settings
from tests.support import containers
from tests.support.require import no_docker, require
from tests.support.servers import SessionServers, data_folder

hypothesis.settings.register_profile("runtara", deadline=None)  # seconds of a busy machine say nothing
hypothesis.settings.load_profile("runtara")

_JOURNAL_BYTES = 64 * 1024 * 1024  # the server reserves it for each stream


@pytest.fixture(scope="session")
def servers() -> Iterator[SessionServers]:
    """NATS and Postgres, started when the first test asks for them."""
    with data_folder() as folder, SessionServers(folder / "data") as servers:
        yield servers


@pytest.fixture
def deployment() -> str:
    """A deployment's name that nobody else uses."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def settings(servers: SessionServers, deployment: str) -> Iterator[Settings]:
    """Settings for a deployment of the test's own on the session's servers; both are cleaned up afterwards."""
    yield Settings(
        deployment=deployment,
        nats_url=servers.nats_url,
        nats_keys=servers.nats_keys,
        database_url=servers.database_url,
        journal_max_bytes=_JOURNAL_BYTES,
    )
    servers.run(servers.forget(deployment))


@pytest.fixture(scope="session")
def docker_engine() -> Any:
    """The Docker Engine that answers here."""
    return containers.engine()


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """Tests with the marker `docker` are skipped where no engine answers, or fail if `RUNTARA_REQUIRE` names it."""
    if request.node.get_closest_marker("docker") is not None:
        require("docker", no_docker)
