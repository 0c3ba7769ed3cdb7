"""The agent `compression`: its capabilities, over `archives` and `bounds`."""

import mimetypes
from functools import partial
from typing import Final

from ..agent import agent, capability
from ..errors import AgentError
from ..models import INVALID_DATA, Data, FileObject, decode_base64, read_bytes
from .archives import UNKNOWN_FORMAT, Member, format_of, members, packed
from .bounds import CONTENT_BYTES, DUPLICATE_PATH, READ_ERROR, TOO_LARGE, UNSAFE_ENTRY, UNSAFE_PATH, safe_path
from .models import (
    ArchiveFile,
    ArchiveFormat,
    CreateArchive,
    Entry,
    ExtractArchive,
    ExtractedFile,
    ExtractFile,
    Extraction,
    ListArchive,
    Listing,
)

NO_FILES: Final = "ARCHIVE_NO_FILES"
FILE_NOT_FOUND: Final = "ARCHIVE_FILE_NOT_FOUND"
IS_DIRECTORY: Final = "ARCHIVE_IS_DIRECTORY"
_UNNAMED: Final = "file"
_MIME_TYPES: Final[dict[ArchiveFormat, str]] = {"zip": "application/zip", "tar.gz": "application/gzip"}
_PACKED: Final = "application/gzip"
_OTHER: Final = "application/octet-stream"
_PATHS: Final = (UNSAFE_PATH, DUPLICATE_PATH, TOO_LARGE, INVALID_DATA)
_READING: Final = (READ_ERROR, UNKNOWN_FORMAT, UNSAFE_ENTRY, *_PATHS)
_TYPES: Final = mimetypes.MimeTypes()  # Python's own table: the machine's files would make results differ

pure = partial(capability, idempotent=True)


@agent("compression", display_name="Compression")
class Compression:
    """Packs and unpacks archives in memory. Bombs, links and paths that leave the archive are refused."""

    @pure("create-archive", errors=(NO_FILES, *_PATHS))
    def create_archive(self, inputs: CreateArchive) -> FileObject:
        """Pack files into a zip or tar.gz archive. The same files give the same archive."""
        if not inputs.files:
            raise AgentError(NO_FILES, "an archive needs at least one file")
        contents = [(_path_of(one), read_bytes(one.file, base64_text=True)) for one in inputs.files]
        total = sum(len(content) for _, content in contents)
        if total > CONTENT_BYTES:
            reason = f"its files have {total:,} bytes together; an archive holds {CONTENT_BYTES:,} at most"
            raise AgentError(TOO_LARGE, reason, attributes={"limit": CONTENT_BYTES})
        archive = packed(contents, inputs.format, inputs.compression_level)
        name = inputs.archive_name or f"archive.{inputs.format}"
        return FileObject.of(archive, filename=name, mime_type=_MIME_TYPES[inputs.format])

    @pure("extract-archive", errors=_READING)
    def extract_archive(self, inputs: ExtractArchive) -> Extraction:
        """Unpack all files of an archive. Sizes are bounded, and nothing is written to a disk."""
        archive = _bytes_of(inputs.archive)
        files = [_extracted(one) for one in members(archive, inputs.format or format_of(archive))]
        return Extraction(files=files, count=len(files))

    @pure("extract-file", errors=(FILE_NOT_FOUND, IS_DIRECTORY, *_READING))
    def extract_file(self, inputs: ExtractFile) -> FileObject:
        """Unpack one file of an archive."""
        archive = _bytes_of(inputs.archive)
        wanted = safe_path(inputs.file_path.replace("\\", "/").lstrip("/"))
        every = list(members(archive, inputs.format or format_of(archive), only=wanted))
        found = next((one for one in every if one.path == wanted), None)
        if found is None and not any(one.path.startswith(f"{wanted}/") for one in every):
            reason = f"the archive has no file {inputs.file_path!r}"
            raise AgentError(FILE_NOT_FOUND, reason, attributes={"file_path": inputs.file_path})
        if found is None or found.folder:
            raise AgentError(IS_DIRECTORY, f"{inputs.file_path!r} is a folder; name a file in it")
        return _extracted(found).file

    @pure("list-archive", errors=_READING)
    def list_archive(self, inputs: ListArchive) -> Listing:
        """What an archive says of its files. Nothing is unpacked, so sizes may be untrue."""
        archive = _bytes_of(inputs.archive)
        form = inputs.format or format_of(archive)
        entries = [
            Entry(path=one.path, size=one.size, compressed_size=one.compressed_size, is_directory=one.folder)
            for one in members(archive, form, content=False)
        ]
        total = sum(entry.size for entry in entries)
        return Listing(entries=entries, total_count=len(entries), total_size=total, format=form)


def _path_of(one: ArchiveFile) -> str:
    if one.path is not None:
        return one.path
    return (one.file.filename if isinstance(one.file, FileObject) else None) or _UNNAMED


def _bytes_of(archive: Data) -> bytes:
    """A text can only be base64 here: no archive is one."""
    if isinstance(archive, str) and not archive.startswith("data:"):
        return decode_base64(archive, "the archive")
    return read_bytes(archive)


def _extracted(member: Member) -> ExtractedFile:
    name = member.path.rpartition("/")[2]
    kind = None if member.folder else _mime_type(name)
    file = FileObject.of(member.content or b"", filename=name, mime_type=kind)
    return ExtractedFile(file=file, path=member.path, size=member.size, is_directory=member.folder)


def _mime_type(name: str) -> str:
    kind, packing = _TYPES.guess_type(name)
    return _PACKED if packing else kind or _OTHER
