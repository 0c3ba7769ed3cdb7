"""What an archive may hold: how much, and under which names.

Whoever made an archive may have wanted to harm whoever opens it: by names that leave the folder it is opened in, by
links, by two files of one name of which a check sees the first and a reader the second, and by a few kilobytes that
become gigabytes. Nothing here writes to a disk, but what is extracted goes on to steps that do.

Invariants: sizes are counted as they are read, never believed; a path that passes is relative, has no `..`, no
backslash, no control character, and is the only one of its name.
"""

import unicodedata
from typing import Final

from ..errors import AgentError

READ_ERROR: Final = "ARCHIVE_READ_ERROR"
UNSAFE_PATH: Final = "ARCHIVE_UNSAFE_PATH"
UNSAFE_ENTRY: Final = "ARCHIVE_UNSAFE_ENTRY"
DUPLICATE_PATH: Final = "ARCHIVE_DUPLICATE_PATH"
TOO_LARGE: Final = "ARCHIVE_TOO_LARGE"
ENTRIES: Final = 10_000
CONTENT_BYTES: Final = 48 * 1024 * 1024  # of all files together: as base64 it is the 64 MiB that the platform carries
RATIO: Final = 200  # of content to archive: text reaches 20, zeros 1,000
FREE_BYTES: Final = 8 * 1024 * 1024  # that are allowed at any ratio
PATH_CHARACTERS: Final = 1_024
CHUNK_BYTES: Final = 64 * 1024


class Budget:
    """How much more may be read out of an archive of `size` bytes. Raises `AgentError` ARCHIVE_TOO_LARGE."""

    def __init__(self, size: int) -> None:
        self._limit = min(CONTENT_BYTES, max(FREE_BYTES, size * RATIO))
        self._left = self._limit

    @property
    def left(self) -> int:
        return self._left

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            reason = f"it holds more than {self._limit:,} bytes, the most that is taken out of one of its size"
            raise AgentError(TOO_LARGE, reason, attributes={"limit": self._limit})


class Paths:
    """The paths of an archive so far."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._entries = 0

    def add(self, path: str, *, folder: bool) -> str:
        """The path as it is used. Raises `AgentError` ARCHIVE_UNSAFE_PATH, _DUPLICATE_PATH or _TOO_LARGE."""
        self._entries += 1
        if self._entries > ENTRIES:
            raise AgentError(TOO_LARGE, f"it has more than {ENTRIES:,} entries")
        checked = safe_path(path)
        key = unicodedata.normalize("NFC", checked).casefold()  # one file on disks that know no case
        parts = key.split("/")
        parents = {"/".join(parts[:count]) for count in range(1, len(parts))}
        taken = (key in self._files) or (not folder and key in self._folders) or not self._files.isdisjoint(parents)
        if taken:
            reason = f"two entries are named {checked!r}, or one lies within the other as in a folder"
            raise AgentError(DUPLICATE_PATH, reason, attributes={"path": checked})
        self._folders |= parents
        (self._folders if folder else self._files).add(key)
        return checked


def safe_path(path: str) -> str:
    """The path with single slashes, none at its end. Raises `AgentError` ARCHIVE_UNSAFE_PATH."""
    found = "/".join(part for part in path.split("/") if part not in ("", "."))
    why = _what_is_wrong(path, found)
    if why is not None:
        reason = f"the path {path[:PATH_CHARACTERS]!r} {why}"
        raise AgentError(UNSAFE_PATH, reason, attributes={"path": path[:PATH_CHARACTERS]})
    return found


def _what_is_wrong(path: str, found: str) -> str | None:
    if not found:
        return "is empty"
    if len(path) > PATH_CHARACTERS:
        return f"has more than {PATH_CHARACTERS:,} characters"
    if path.startswith("/") or path[1:2] == ":":
        return "is absolute"
    if "\\" in path:
        return "has a backslash; write /"
    if not path.isprintable():
        return "has control characters"
    return "leaves the archive by .." if ".." in found.split("/") else None
