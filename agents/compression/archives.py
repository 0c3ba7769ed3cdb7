"""Reading and writing zip and tar.gz, entry by entry, in memory.

Invariants: an entry is a file or a folder: links, devices, sparse and encrypted files are refused, and compressions
whose memory has no bound; the same files give the same bytes, whenever and wherever they are packed.
"""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

from ..errors import AgentError
from .bounds import CHUNK_BYTES, READ_ERROR, UNSAFE_ENTRY, Budget, Paths
from .models import ArchiveFormat

UNKNOWN_FORMAT: Final = "ARCHIVE_UNKNOWN_FORMAT"
WRITE_ERROR: Final = "ARCHIVE_WRITE_ERROR"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP: Final = b"\x1f\x8b"
_BEGINNING: Final = (1980, 1, 1, 0, 0, 0)  # of time, in zip
_FILE_MODE: Final = 0o644
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA's own header says how much memory it takes
_WRONG: Final = (  # what zipfile and tarfile raise for bytes that are no archive
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error,
    EOFError, OSError, ValueError, ArithmeticError, LookupError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An entry of an archive. `content` is None where only names were asked for, and of folders."""

    path: str
    size: int
    compressed_size: int | None
    folder: bool
    content: bytes | None


def format_of(archive: bytes) -> ArchiveFormat:
    """By its first bytes. Raises `AgentError` ARCHIVE_UNKNOWN_FORMAT."""
    if archive.startswith(_ZIP):
        return "zip"
    if archive.startswith(_GZIP):
        return "tar.gz"
    raise AgentError(UNKNOWN_FORMAT, "it is neither a zip nor a tar.gz archive")


def members(archive: bytes, form: ArchiveFormat, *, only: str | None = None, content: bool = True) -> Iterator[Member]:
    """The entries, with their content if asked for: of all, or of the path `only`.

    Raises `AgentError` ARCHIVE_READ_ERROR, or for what `bounds` and this module refuse.
    """
    try:
        yield from (_zip_members if form == "zip" else _tar_members)(archive, only, content)
    except _WRONG as exc:
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        raise AgentError(READ_ERROR, f"the archive cannot be read: {reason}") from None


def packed(files: Iterable[tuple[str, bytes]], form: ArchiveFormat, level: int) -> bytes:
    """An archive of paths and contents. Raises `AgentError` for a path that `bounds` refuses."""
    paths = Paths()
    checked = ((paths.add(path, folder=False), content) for path, content in files)
    return (_zipped if form == "zip" else _tarred)(checked, level)


def _zip_members(archive: bytes, only: str | None, content: bool) -> Iterator[Member]:
    budget, paths = Budget(len(archive)), Paths()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for info in opened.infolist():
            path = paths.add(info.orig_filename, folder=info.is_dir())
            _check_zip_entry(info, path)
            wanted = content and not info.is_dir() and only in (None, path)
            found = _read(opened.open(info), budget) if wanted else None
            size = info.file_size if found is None else len(found)
            yield Member(path=path, size=size, compressed_size=info.compress_size, folder=info.is_dir(), content=found)


def _tar_members(archive: bytes, only: str | None, content: bool) -> Iterator[Member]:
    paths = Paths()
    stream = _Bounded(gzip.GzipFile(fileobj=io.BytesIO(archive)), Budget(len(archive)))
    with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|") as opened:
        for info in opened:
            if info.isdir() and info.name.strip("./") == "":
                continue  # `tar -C folder .` begins with the folder itself
            path = paths.add(info.name, folder=info.isdir())
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _unsafe(path, "a link, a device or a sparse file")
            wanted = content and info.isreg() and only in (None, path)
            extracted = opened.extractfile(info) if wanted else None
            found = None if extracted is None else extracted.read()
            if found is not None and len(found) != info.size:
                raise EOFError("it ends early")
            yield Member(path=path, size=info.size, compressed_size=None, folder=info.isdir(), content=found)


def _check_zip_entry(info: zipfile.ZipInfo, path: str) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(path, "a link or a device")
    if info.flag_bits & 0x1:
        raise _unsafe(path, "encrypted")
    if info.compress_type not in _METHODS:
        raise _unsafe(path, "compressed by a method other than deflate")


def _read(stream: IO[bytes], budget: Budget) -> bytes:
    with stream:
        found = io.BytesIO()
        while chunk := stream.read(CHUNK_BYTES):
            budget.spend(len(chunk))
            found.write(chunk)
        return found.getvalue()


class _Bounded(io.RawIOBase):
    """A stream that gives no more than its budget: also headers of a tar can be bombs."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        chunk = self._stream.read(min(len(buffer), CHUNK_BYTES))
        self._budget.spend(len(chunk))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _zipped(files: Iterable[tuple[str, bytes]], level: int) -> bytes:
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method, compresslevel=level or None) as archive:
        for path, content in files:
            info = zipfile.ZipInfo(path, _BEGINNING)
            info.external_attr = (stat.S_IFREG | _FILE_MODE) << 16
            info.create_system = 3  # Unix, wherever it is packed
            archive.writestr(info, content, method, level or None)
    return out.getvalue()


def _tarred(files: Iterable[tuple[str, bytes]], level: int) -> bytes:
    out = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=level, mtime=0) as packer,
        tarfile.open(fileobj=packer, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, content in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), _FILE_MODE
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _unsafe(path: str, what: str) -> AgentError:
    return AgentError(UNSAFE_ENTRY, f"the entry {path!r} is {what}, which is refused", attributes={"path": path})
