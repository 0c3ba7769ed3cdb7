"""What the capabilities of `compression` take and give. Older files write names in camel case, which is taken too."""

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from ..models import Data, FileObject, Inputs, Outputs

ArchiveFormat = Literal["zip", "tar.gz"]


def _one_name(value: object) -> object:
    return "tar.gz" if value in ("tgz", "targz") else value


_Format = Annotated[ArchiveFormat, BeforeValidator(_one_name)]
_Archive = Annotated[Data, Field(description="The archive: base64, a byte array or a file object.")]
_Detected = Annotated[
    _Format | None, Field(description="Its format. By default found out from its first bytes.", examples=["zip"])
]


class ArchiveFile(Inputs):
    """A file to put into an archive."""

    file: Data = Field(description="Its content: text, base64, a byte array or a file object.")
    path: str | None = Field(
        default=None,
        description="Its path within the archive. By default the file object's name, else `file`.",
        examples=["data/report.csv"],
    )


class CreateArchive(Inputs):
    """Inputs of `create-archive`."""

    files: list[ArchiveFile] = Field(
        description="The files: objects of `file`, its content, and `path`, within the archive."
    )
    format: _Format = Field(default="zip", description="zip or tar.gz.")
    compression_level: int = Field(
        default=6,
        ge=0,
        le=9,
        description="From 0, none, to 9, the smallest.",
        validation_alias=AliasChoices("compression_level", "compressionLevel"),
    )
    archive_name: str | None = Field(
        default=None,
        description="Name of the archive. By default archive.zip or archive.tar.gz.",
        examples=["data.zip"],
        validation_alias=AliasChoices("archive_name", "archiveName"),
    )


class ExtractArchive(Inputs):
    """Inputs of `extract-archive`."""

    archive: _Archive
    format: _Detected = None


class ExtractFile(Inputs):
    """Inputs of `extract-file`."""

    archive: _Archive
    file_path: str = Field(
        description="Path of the file within the archive.",
        examples=["data/report.csv"],
        validation_alias=AliasChoices("file_path", "filePath"),
    )
    format: _Detected = None


class ListArchive(Inputs):
    """Inputs of `list-archive`."""

    archive: _Archive
    format: _Detected = None


class ExtractedFile(Outputs):
    """A file or directory of an archive."""

    file: FileObject
    path: str
    size: int
    is_directory: bool


class Extraction(Outputs):
    """All that an archive holds."""

    files: list[ExtractedFile]
    count: int


class Entry(Outputs):
    """What an archive says of one of its files. A tar.gz knows no sizes of compressed files."""

    path: str
    size: int
    compressed_size: int | None
    is_directory: bool


class Listing(Outputs):
    """The entries of an archive."""

    entries: list[Entry]
    total_count: int
    total_size: int
    format: ArchiveFormat
