"""What several test processes want to make at the same moment, one of them makes, and the others find."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(what: str) -> Iterator[None]:
    """Held by one process of this machine at a time. Not to be entered twice by one."""
    with Path(tempfile.gettempdir(), f"runtara-test-{os.getuid()}-{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, and so with the process
        yield
