"""A Docker Engine, a base image and wheels, all of this machine: nothing is pulled, and no index is asked."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.runner.images.docker_engine import DockerEngine
from tests.support import base_images
from tests.support.require import no_docker, require
from tests.support.wheelhouse import wheelhouse

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    require("docker", no_docker)
    with DockerEngine.connect() as engine:
        yield engine


@pytest.fixture(scope="session")
def base(docker_engine: DockerEngine) -> str:
    """The name of an image with Python, as builds begin with."""
    base_images.ensure_python(docker_engine)
    return base_images.PYTHON


@pytest.fixture(scope="session")
def wheels() -> Path:
    return wheelhouse()


@pytest.fixture
def tag(docker_engine: DockerEngine) -> Iterator[str]:
    """A name for an image that the test makes."""
    name = f"runtara-test-{secrets.token_hex(4)}:1"
    yield name
    docker_engine.remove(name)
