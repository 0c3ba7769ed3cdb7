"""Which paths are taken: those that mean what they seem to mean, and stay below the connection's base if it has one.

Invariants: `..`, control characters and NUL never reach the server; with a base, links that lead out of it are found
by asking the server where a path really is, before anything is done there.
"""

from typing import Final

import asyncssh

from .failures import bad_path
from .patience import in_time

MAX_PATH_BYTES: Final = 4_096  # what systems take, usually


def checked(path: str, base: str | None) -> str:
    """The path as the server is given it. Raises `AgentError` SFTP_INVALID_PATH."""
    try:
        size = len(path.encode())
    except UnicodeError:
        raise bad_path(path.encode(errors="replace").decode(), "it holds what is no character") from None
    if not path or size > MAX_PATH_BYTES:
        raise bad_path(path[:100], f"it has no character, or more than {MAX_PATH_BYTES:,} bytes")
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise bad_path(path, "it holds control characters")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise bad_path(path, "it holds '..'")
    plain = "/".join(parts)
    if not path.startswith("/"):
        return _joined(base, plain)
    if base is not None and not _is_below(f"/{plain}", _normal(base)):
        raise bad_path(path, f"it is outside of {base!r}, the base of the connection")
    return f"/{plain}"


def checked_file(path: str, base: str | None) -> str:
    """The path of a file, which has a name."""
    if path.endswith("/") or path.rsplit("/", 1)[-1] in (".", ""):
        raise bad_path(path, "it names a folder, not a file")
    return checked(path, base)


async def require_inside(sftp: asyncssh.SFTPClient, path: str, base: str | None) -> None:
    """That `path`, with all links followed, is below the base. Raises `AgentError` SFTP_INVALID_PATH."""
    if base is None:
        return
    there, root = await in_time(sftp.realpath(path)), await in_time(sftp.realpath(base))
    if not _is_below(str(there), str(root)):
        raise bad_path(path, f"a link leads out of {base!r}, the base of the connection")


def split(path: str) -> tuple[str, str]:
    """Folder and name."""
    folder, slash, name = path.rpartition("/")
    return (folder or "/" if slash else "."), name


def _joined(base: str | None, plain: str) -> str:
    if base is None:
        return plain or "."
    return f"{_normal(base)}/{plain}".rstrip("/") or "/"


def _normal(base: str) -> str:
    return base.rstrip("/")


def _is_below(path: str, base: str) -> bool:
    return path == (base or "/") or path.startswith(f"{base.rstrip('/')}/")
