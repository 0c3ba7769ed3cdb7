"""The pytest plugin: fixtures for tests of workflows. `pip install runtara` is enough, pytest finds it by itself.

Invariant: loading it imports nothing of Runtara, so a test run that does not use it does not pay for it.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from runtara.sdk.testing import MemoryPlatform


@pytest.fixture
def runtara_platform() -> "MemoryPlatform":
    """A platform in memory, for this test alone (see `runtara.sdk.testing`). It lives in the test's event loop."""
    from runtara.sdk.testing import MemoryPlatform

    return MemoryPlatform()
