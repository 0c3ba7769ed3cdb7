"""The secrets of containers: files in folders of the runner's, each seen by one container, read-only. And its lock.

Invariants: a file is readable by the container's user alone; what is laid is removed with its container, and at the
start whatever an earlier life left without one. The folder should be in memory (`/run` is).
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Final

from runtara.infra.settings import Settings
from runtara.protocol.errors import Refused

from ..launches import LaunchFailed
from .spec import USER

DEFAULT_FOLDER: Final = Path("/run/runtara")
SECRETS_SUFFIX: Final = "-secrets"  # of the folder with what the image names; the other has what is ours
_FOLDER_MODE: Final = 0o711  # one has to know the name of what is in it


class Files:
    """Those of runner `runner`."""

    def __init__(self, settings: Settings, runner: str) -> None:
        self._root = _root(settings) / runner
        self._root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = _locked(self._root.with_suffix(".lock"), runner)
        self._root.chmod(_FOLDER_MODE)
        self._values = Path(settings.secrets_dir) if settings.secrets_dir is not None else None

    def close(self) -> None:
        self._lock.close()

    def lay(self, name: str, files: Mapping[str, str]) -> str:
        """A folder for container `name` that holds `files`; where it is."""
        folder = self._root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        for file, value in files.items():
            path = folder / file
            path.touch(mode=0o600)
            path.write_text(value)
            _give(path, 0o400)
        _give(folder, 0o500)
        return str(folder)

    def values(self, names: Collection[str]) -> dict[str, str]:
        """What the secrets of these names are. Raises `LaunchFailed` if one is not known."""
        found = {}
        for name in names:
            if self._values is None or "/" in name or name in ("", ".", ".."):
                raise LaunchFailed(reason=f"secret {name!r} cannot be had: this runner has no such file in secrets_dir")
            try:
                found[name] = (self._values / name).read_text()
            except (OSError, UnicodeDecodeError) as exc:
                raise LaunchFailed(reason=f"secret {name!r} cannot be read: {exc.__class__.__name__}") from exc
        return found

    def remove(self, name: str) -> None:
        """What was laid for container `name`."""
        for folder in (name, f"{name}{SECRETS_SUFFIX}"):
            shutil.rmtree(self._root / folder, ignore_errors=True)

    def remove_all_but(self, names: Collection[str]) -> None:
        for folder in self._root.iterdir():
            if not any(folder.name.startswith(name) for name in names):
                shutil.rmtree(folder, ignore_errors=True)


def _locked(path: Path, runner: str) -> IO[str]:
    """Held as long as it is open: two of one name would each take the other's containers for its own."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise Refused(reason=f"another {runner} runs on this machine: give each runner a name (--name)") from exc
    return lock


def _root(settings: Settings) -> Path:
    if settings.runner_dir is not None:
        return Path(settings.runner_dir)
    if os.access(DEFAULT_FOLDER.parent, os.W_OK):
        return DEFAULT_FOLDER
    return Path(tempfile.gettempdir(), f"runtara-{os.getuid()}")


def _give(path: Path, mode: int) -> None:
    """To the container's user; where we may not, others can read it who know the name of its folder."""
    if os.geteuid() == 0:
        os.chown(path, USER, USER)
    else:
        mode |= 0o055 if path.is_dir() else 0o044
    path.chmod(mode)
