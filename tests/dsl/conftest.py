"""JSON workflows run here on the platform in memory, with an agent that counts its calls."""

from collections.abc import Iterator

import pytest

from tests.support.probe_agent import probe_agent


@pytest.fixture(autouse=True)
def _probe() -> Iterator[None]:
    with probe_agent():
        yield
