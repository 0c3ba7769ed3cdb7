"""The agent `compression`: archives of files, in memory and within bounds."""

from .agent import Compression
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

__all__ = [
    "ArchiveFile",
    "ArchiveFormat",
    "Compression",
    "CreateArchive",
    "Entry",
    "ExtractArchive",
    "ExtractFile",
    "ExtractedFile",
    "Extraction",
    "ListArchive",
    "Listing",
]
