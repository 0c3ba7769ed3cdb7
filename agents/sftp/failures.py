"""The ways in which SFTP fails, each with its code and whether trying again can help.

Invariants: what the network does, and a full disk, are transient; everything else is permanent. A text never holds more
of the connection than host, port and user.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncssh

from ..errors import AgentError

CONNECTION_ERROR: Final = "SFTP_CONNECTION_ERROR"
AUTH_FAILED: Final = "SFTP_AUTH_FAILED"
NO_AUTH_METHOD: Final = "SFTP_NO_AUTH_METHOD"
HOST_KEY_UNKNOWN: Final = "SFTP_HOST_KEY_UNKNOWN"
HOST_KEY_CHANGED: Final = "SFTP_HOST_KEY_CHANGED"
INVALID_CONNECTION: Final = "SFTP_INVALID_CONNECTION"
INVALID_PATH: Final = "SFTP_INVALID_PATH"
FILE_NOT_FOUND: Final = "SFTP_FILE_NOT_FOUND"
PERMISSION_DENIED: Final = "SFTP_PERMISSION_DENIED"
NO_SPACE: Final = "SFTP_NO_SPACE"
TOO_LARGE: Final = "SFTP_TOO_LARGE"
FAILED: Final = "SFTP_FAILED"
OF_CONNECTING: Final = (
    CONNECTION_ERROR, AUTH_FAILED, NO_AUTH_METHOD, HOST_KEY_UNKNOWN, HOST_KEY_CHANGED, INVALID_CONNECTION,
)  # fmt: skip
OF_FILES: Final = (INVALID_PATH, FILE_NOT_FOUND, PERMISSION_DENIED, FAILED)


@asynccontextmanager
async def told_of(path: str) -> AsyncIterator[None]:
    """Turns what the server or the network does while `path` is worked on into an `AgentError`."""
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as exc:
        raise _about(path, FILE_NOT_FOUND, "does not exist") from exc
    except (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect) as exc:
        raise _about(path, PERMISSION_DENIED, "may not be used so by this user") from exc
    except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as exc:
        raise no_space(path) from exc
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, OSError) as exc:
        raise AgentError(
            CONNECTION_ERROR, f"the connection was lost while {path!r} was worked on", category="transient",
            attributes={"path": path},
        ) from exc  # fmt: skip
    except (asyncssh.SFTPError, asyncssh.ChannelOpenError) as exc:
        raise _about(path, FAILED, f"failed: {exc.reason}") from exc


def no_space(path: str) -> AgentError:
    """Transient: someone may make room."""
    message = f"{path!r} cannot be written: the server has no space left"
    return AgentError(NO_SPACE, message, category="transient", attributes={"path": path})


def too_large(path: str, what: str) -> AgentError:
    return AgentError(TOO_LARGE, f"{path!r} has more than {what}", attributes={"path": path})


def bad_path(path: str, reason: str) -> AgentError:
    return AgentError(INVALID_PATH, f"{path!r} is refused: {reason}", attributes={"path": path})


def _about(path: str, code: str, what: str) -> AgentError:
    return AgentError(code, f"{path!r} {what}", attributes={"path": path})
