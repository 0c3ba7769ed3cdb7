"""Tests that need something of the machine: skipped, with a reason, where it is missing; failed where it must be."""

import os
from collections.abc import Callable
from typing import Final

import pytest

VARIABLE: Final = "RUNTARA_REQUIRE"  # names, separated by commas: `.ci/run` sets it


def require(what: str, probe: Callable[[], str | None]) -> None:
    """`probe` says what is missing, or None."""
    missing = probe()
    if missing is None:
        return
    if what in os.environ.get(VARIABLE, "").split(","):
        pytest.fail(f"{VARIABLE} names {what}, but {missing}")
    pytest.skip(f"needs {what}: {missing}")


def no_docker() -> str | None:
    """Why there is no Docker Engine to be used; None if there is one."""
    from runtara.protocol.errors import Unavailable
    from runtara.runner.images.docker_engine import DockerEngine

    try:
        with DockerEngine.connect():
            return None
    except Unavailable as exc:
        return str(exc)
