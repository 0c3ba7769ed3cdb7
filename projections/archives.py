"""Archive files: events that leave the database, gzipped, with a last line that says whose they are.

Invariants: a file appears under its name only when it is complete and synced, its folder too; `SHA256SUMS` beside it
has its digest, so that `sha256sum --check SHA256SUMS` proves the folder.
"""

import gzip
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import asyncpg
import msgspec

from runtara.protocol.errors import BadInput

from .export import lines

SUMS: Final = "SHA256SUMS"


class RetiredInstance(msgspec.Struct, frozen=True, kw_only=True):
    """`hash`: of its last event, in hex; its first one follows 32 zero bytes."""

    tenant: str
    instance: str
    partition: int
    workflow: str
    status: str
    version: int
    hash: str


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of an archive. Events of other instances in the file are still in the database."""

    retired: list[RetiredInstance]


class ArchiveFile:
    """A file in the making; without `finish` nothing is left of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._part = folder / f".{name}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("xb")
        except OSError as exc:
            raise BadInput(reason=f"cannot write to {folder}: {exc.strerror or exc}") from exc
        self._gzip = gzip.GzipFile(filename="", fileobj=self._file, mode="wb", compresslevel=6)

    def __enter__(self) -> "ArchiveFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, page: list[asyncpg.Record]) -> None:
        self._gzip.write(lines(page))

    def finish(self, retired: Sequence[RetiredInstance]) -> bytes:
        """Its SHA-256, once it is on the disk under its name."""
        self._gzip.write(msgspec.json.encode(Contents(retired=list(retired))) + b"\n")
        self._gzip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        with self._part.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256")
        self._part.rename(self._path)
        with (self._path.parent / SUMS).open("a") as sums:
            sums.write(f"{digest.hexdigest()}  {self._path.name}\n")
            sums.flush()
            os.fsync(sums.fileno())
        _sync_folder(self._path.parent)
        return digest.digest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
