"""A data folder of the test's own: these tests kill and restart servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import data_folder


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder / "data"
