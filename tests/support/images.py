"""A Docker Engine, a base image and wheels, all of this machine: nothing is pulled, and no index is asked.

Fixtures: a test module names those that it uses, `from tests.support.images import base, docker_engine, tag, wheels`.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.runner.images.docker_engine import DockerEngine

from . import base_images
from .require import no_docker, require
from .wheelhouse import wheelhouse

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
