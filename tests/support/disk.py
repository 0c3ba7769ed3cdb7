"""A disk of a few megabytes, which a test fills and makes room on again."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHUNK = b"\0" * 65_536


class SmallDisk:
    """What is mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Until not a byte is left. Said again: what was freed meanwhile."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(CHUNK):
                pass

    def make_room(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """A file system of its own in `folder`, which is made. Skips the test where mounting is not permitted."""
    folder.mkdir(parents=True)
    options = f"size={megabytes}m,mode=711"
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
