"""Values that leave the database with the instances that used them: one file each, beside the archives.

`blobs/<tenant>/<hash>.json.zst`, named by the SHA-256 of its content, so `zstd -dc FILE | sha256sum` proves it, and one
that several archives need is there once.

Invariants: a file appears under its name only when it is complete, proved and synced, its folder too.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import zstandard

from runtara.protocol.errors import BadInput

FOLDER: Final = "blobs"
_CHUNK: Final = 1024 * 1024


def blob_file(folder: Path, tenant: str, hash: str) -> Path:
    return folder / FOLDER / tenant / f"{hash}.json.zst"


async def write_blob(folder: Path, tenant: str, hash: str, parts: AsyncIterator[bytes]) -> bool:
    """Write the parts of a value as they come, unless it is there already. What `parts` raises leaves no file."""
    path = blob_file(folder, tenant, hash)
    if path.exists():
        return False
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            async for packed in parts:
                file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _sync(path.parent)
    except ConnectionError:  # the database's
        raise
    except OSError as exc:
        raise BadInput(reason=f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)
    return True


def file_damage(folder: Path, tenant: str, hash: str) -> str | None:
    """What is wrong with the file of a value, if something is."""
    digest = hashlib.sha256()
    try:
        with blob_file(folder, tenant, hash).open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
    except (OSError, zstandard.ZstdError) as exc:
        return f"cannot be read: {exc}"
    return None if digest.hexdigest() == hash else "is not what its hash says"


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
