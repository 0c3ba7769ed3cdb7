"""The agent itself: checks the path, opens a session, does the one thing that is asked, closes it.

Invariants: nothing is sent before inputs and path are known to be good; each call has a session of its own, and waits
for it if there are many.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncssh

from ..agent import agent, capability
from ..connections import Sftp as SftpConnection
from ..connections import without_secrets
from ..errors import AgentError
from ..models import INVALID_DATA, decode_base64, read_bytes
from . import failures, paths, transfer
from .models import Deleted, DeleteFile, DownloadFile, FileInfo, ListFiles, UploadFile
from .patience import LISTING_SECONDS, in_time
from .session import session
from .turns import turn

_COMMON: Final = (*failures.OF_CONNECTING, *failures.OF_FILES)
_SELF: Final = frozenset({".", ".."})


@agent("sftp", display_name="SFTP", side_effects=True, connections=("sftp",))
class Sftp:
    """Files on other machines, over SSH."""

    @capability("sftp-list-files", display_name="List files", side_effects=False, idempotent=True,
                errors=(*_COMMON, failures.TOO_LARGE))  # fmt: skip
    async def list_files(self, inputs: ListFiles, connection: SftpConnection) -> list[FileInfo]:
        """Lists a folder, by name."""
        path = paths.checked(inputs.path, connection.base_path)
        found: list[FileInfo] = []
        async with _open(connection) as sftp, failures.told_of(path):
            await paths.require_inside(sftp, path, connection.base_path)
            async with asyncio.timeout(LISTING_SECONDS):
                async for entry in sftp.scandir(path):
                    if str(entry.filename) not in _SELF:
                        found.append(_info(path, entry))
                    if len(found) > transfer.MAX_ENTRIES:
                        raise failures.too_large(path, f"{transfer.MAX_ENTRIES:,} entries")
        return sorted(found, key=lambda info: info.name)

    @capability("sftp-download-file", display_name="Download a file", side_effects=False, idempotent=True,
                errors=(*_COMMON, failures.TOO_LARGE, INVALID_DATA))  # fmt: skip
    async def download_file(self, inputs: DownloadFile, connection: SftpConnection) -> str:
        """Gives the content of a file, as text or base64."""
        path = paths.checked_file(inputs.path, connection.base_path)
        async with _open(connection) as sftp:
            await paths.require_inside(sftp, path, connection.base_path)
            content = await transfer.download(sftp, path)
        if inputs.response_format == "base64":
            return base64.b64encode(content).decode()
        try:
            return content.decode()
        except UnicodeDecodeError as exc:
            message = f"{path!r} is no UTF-8 text; ask for response_format base64"
            raise AgentError(INVALID_DATA, message, attributes={"path": path}) from exc

    @capability("sftp-upload-file", display_name="Upload a file", idempotent=True,
                errors=(*_COMMON, failures.NO_SPACE, failures.TOO_LARGE, INVALID_DATA))  # fmt: skip
    async def upload_file(self, inputs: UploadFile, connection: SftpConnection) -> int:
        """Writes a file and gives its size in bytes.

        It is written beside its final name and then renamed, so nobody ever sees half of it. A connection that is cut
        may leave a hidden file behind whose name ends in `.part`.
        """
        path = paths.checked_file(inputs.path, connection.base_path)
        content = _content(inputs)
        if len(content) > transfer.MAX_FILE_BYTES:
            raise failures.too_large(path, f"{transfer.MAX_FILE_BYTES:,} bytes")
        async with _open(connection) as sftp:
            await paths.require_inside(sftp, paths.split(path)[0], connection.base_path)
            await transfer.upload(sftp, path, content)
        return len(content)

    @capability("sftp-delete-file", display_name="Delete a file", idempotent=True, errors=_COMMON)
    async def delete_file(self, inputs: DeleteFile, connection: SftpConnection) -> Deleted:
        """Deletes a file. That it is not there is no error, since a step may run again after a crash."""
        path = paths.checked_file(inputs.path, connection.base_path)
        async with _open(connection) as sftp, failures.told_of(path):
            await paths.require_inside(sftp, paths.split(path)[0], connection.base_path)
            try:
                await in_time(sftp.remove(path))
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
                return Deleted(success=False, path=path)
        return Deleted(success=True, path=path)


@asynccontextmanager
async def _open(connection: SftpConnection) -> AsyncIterator[asyncssh.SFTPClient]:
    """A session whose errors hold no secret."""
    try:
        async with turn(connection.host, connection.port), session(connection) as sftp:
            yield sftp
    except AgentError as exc:
        raise without_secrets(exc, connection) from None


def _content(inputs: UploadFile) -> bytes:
    if isinstance(inputs.content, str) and inputs.content_format == "base64":
        return decode_base64(inputs.content, "the content")
    return read_bytes(inputs.content)


def _info(folder: str, entry: asyncssh.SFTPName) -> FileInfo:
    name, attributes = str(entry.filename), entry.attrs
    return FileInfo(
        name=name,
        path=f"{folder.rstrip('/')}/{name}" if folder != "." else name,
        size=attributes.size or 0,
        is_directory=attributes.type == asyncssh.FILEXFER_TYPE_DIRECTORY,
        modified_time=None if attributes.mtime is None else int(attributes.mtime),
    )
