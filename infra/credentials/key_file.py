"""A deployment's keys as their file has them now: it is looked at for each use, and read again once it was replaced.

So a process that lives for months follows a rotation without a restart. Invariant: keys that could be read once are
used until others can be; a file that is gone for a moment, or half copied, ends nothing.
"""

from pathlib import Path

from runtara.protocol.errors import InvalidSetting

from ..logs import logger
from .keyring import FILE, KeyRing

log = logger("credentials")

Mark = tuple[int, int, int]


class KeyFile:
    """At `path`, or in that folder under its usual name. Raises `InvalidSetting` if it cannot be read to begin with."""

    def __init__(self, path: Path) -> None:
        self._file = path / FILE if path.is_dir() else path
        self._mark = self._look()
        self._ring = KeyRing.load(self._file)

    @property
    def ring(self) -> KeyRing:
        mark = self._look()
        if mark is not None and mark != self._mark:
            self._mark = mark
            try:
                self._ring = KeyRing.load(self._file)
                log.info("keys_read_again", file=str(self._file))
            except InvalidSetting as exc:
                log.error("keys_not_read", file=str(self._file), reason=str(exc))
        return self._ring

    def _look(self) -> Mark | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
