"""Moving the bytes of files: in chunks, with limits, and never to be seen half-written.

Invariants: a file is written under a name of its own beside the final one and renamed when all of it is on the server's
disk, so whatever breaks, under the final name there is the old content or the new one; what was begun is removed if the
connection still allows it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import asyncssh

from . import failures, paths
from .patience import in_time, tidy

MAX_FILE_BYTES: Final = 32 * 1024 * 1024  # in base64 it still is below the 64 MiB that a step may give back
MAX_ENTRIES: Final = 100_000  # of a folder; more make a list that no step can give back
PIECE_BYTES: Final = 32 * 1024  # of one request; every server takes that much
CHUNK_BYTES: Final = 64 * PIECE_BYTES  # under way at once
_NAME_BYTES: Final = 100  # of the final name in that of the file beside it, of 255 bytes in all
_PERMISSIONS: Final = 0o7777


async def download(sftp: asyncssh.SFTPClient, path: str) -> bytes:
    """The content of a file. Raises `AgentError`."""
    content = bytearray()
    async with failures.told_of(path), _opened(sftp, path, "rb") as file:
        while chunk := await in_time(_read(file, len(content))):
            content += chunk
            if len(content) > MAX_FILE_BYTES:
                raise failures.too_large(path, f"{MAX_FILE_BYTES:,} bytes")
    return bytes(content)


async def upload(sftp: asyncssh.SFTPClient, path: str, content: bytes) -> None:
    """Write `content` to `path`. Raises `AgentError`."""
    folder, name = paths.split(path)
    short = name.encode()[:_NAME_BYTES].decode(errors="ignore")
    aside = f"{folder}/.{short}.{secrets.token_hex(8)}.part"
    async with failures.told_of(path):
        attributes = await _permissions_of(sftp, path)
        try:
            await _write(sftp, aside, content, attributes)
            await in_time(_rename(sftp, aside, path))
        except BaseException as exc:
            full = isinstance(exc, asyncssh.SFTPFailure) and await _is_full(sftp, folder)
            await tidy(sftp.remove(aside))
            if full:
                raise failures.no_space(path) from exc
            raise


async def _read(file: asyncssh.SFTPClientFile, offset: int) -> bytes:
    """What follows `offset`, as far as it came without a gap; nothing at the end of the file."""
    starts = range(offset, offset + CHUNK_BYTES, PIECE_BYTES)
    content = b""
    for piece in await asyncio.gather(*(file.read(PIECE_BYTES, start) for start in starts)):
        content += cast(bytes, piece)  # as the file is opened
        if len(piece) < PIECE_BYTES:
            break
    return content


async def _write_chunk(file: asyncssh.SFTPClientFile, chunk: bytes, offset: int) -> None:
    pieces = ((chunk[start : start + PIECE_BYTES], offset + start) for start in range(0, len(chunk), PIECE_BYTES))
    await asyncio.gather(*(file.write(piece, where) for piece, where in pieces))


async def _write(sftp: asyncssh.SFTPClient, aside: str, content: bytes, attributes: asyncssh.SFTPAttrs) -> None:
    async with _opened(sftp, aside, "xb", attributes) as file:
        for start in range(0, len(content), CHUNK_BYTES):
            await in_time(_write_chunk(file, content[start : start + CHUNK_BYTES], start))
        with contextlib.suppress(asyncssh.SFTPOpUnsupported):
            await in_time(file.fsync())


@asynccontextmanager
async def _opened(
    sftp: asyncssh.SFTPClient, path: str, mode: str, attributes: asyncssh.SFTPAttrs | None = None
) -> AsyncIterator[asyncssh.SFTPClientFile]:
    """asyncssh's own context manager waits for ever if the server hangs, and its own way of sending several requests at
    once (`block_size`) leaves the errors of all but one for the event loop to complain of."""
    file = await in_time(sftp.open(path, mode, attributes or asyncssh.SFTPAttrs(), block_size=0))
    try:
        yield file
    except BaseException:
        await tidy(file.close())
        raise
    await in_time(file.close())


async def _rename(sftp: asyncssh.SFTPClient, aside: str, path: str) -> None:
    """Over what is there, in one step; a server that cannot do that has a moment without the file."""
    try:
        await sftp.posix_rename(aside, path)
    except asyncssh.SFTPOpUnsupported:
        with contextlib.suppress(asyncssh.SFTPNoSuchFile):
            await sftp.remove(path)
        await sftp.rename(aside, path)


async def _permissions_of(sftp: asyncssh.SFTPClient, path: str) -> asyncssh.SFTPAttrs:
    """Those of the file that is replaced."""
    try:
        found = await in_time(sftp.stat(path))
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return asyncssh.SFTPAttrs()
    if found.permissions is None:
        return asyncssh.SFTPAttrs()
    return asyncssh.SFTPAttrs(permissions=found.permissions & _PERMISSIONS)


async def _is_full(sftp: asyncssh.SFTPClient, folder: str) -> bool:
    """OpenSSH's server says "Failure" and no more when a disk is full."""
    try:
        return (await in_time(sftp.statvfs(folder))).bavail == 0
    except (asyncssh.Error, OSError):
        return False
