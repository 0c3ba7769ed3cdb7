"""What builds need; see `tests.support.images`."""

from tests.support.images import base, docker_engine, tag, wheels

__all__ = ["base", "docker_engine", "tag", "wheels"]
