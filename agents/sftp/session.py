"""A session with an SFTP server: connected, its host key checked, logged in, and closed again.

Invariants: without a key that the operator has given, no host is trusted, and nothing secret is sent; only what the
connection holds is used to log in, never the keys, agents or settings of the machine this runs on; a server that is
silent for long is left.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncssh

from ..connections import Sftp as SftpConnection
from ..errors import AgentError
from . import failures
from .patience import in_time, tidy

CONNECT_SECONDS: Final = 15.0
LOGIN_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 15.0  # then the server is asked whether it lives, three times
_SSH_PORT: Final = 22
_KEY_TYPES: Final = ("ssh-", "ecdsa-", "sk-")


@asynccontextmanager
async def session(connection: SftpConnection) -> AsyncIterator[asyncssh.SFTPClient]:
    """Raises `AgentError` with one of `failures.OF_CONNECTING`."""
    where = f"{connection.host}:{connection.port}"
    hosts = _known_hosts(connection)
    key = await asyncio.to_thread(_private_key, connection)  # a passphrase takes a while to try
    if key is None and connection.password is None:
        raise AgentError(failures.NO_AUTH_METHOD, f"the connection to {where} has neither a password nor a private key")
    if hosts is None:
        raise await _unknown_host(connection)
    try:
        made = await _connect(connection, hosts, key)
    except (asyncssh.Error, OSError) as exc:
        raise await _refused(connection, hosts, exc) from exc
    try:
        async with failures.told_of("."):
            sftp = await in_time(made.start_sftp_client(path_errors="replace"))
        yield sftp
    except BaseException:
        made.abort()  # whoever cannot go on does not wait for a server that may be silent
        raise
    finally:
        made.close()
        await tidy(made.wait_closed())


async def _connect(
    connection: SftpConnection, hosts: asyncssh.SSHKnownHosts, key: asyncssh.SSHKey | None
) -> asyncssh.SSHClientConnection:
    password = connection.password
    return await asyncssh.connect(
        connection.host,
        connection.port,
        username=connection.username,
        password=None if password is None else password.get_secret_value(),
        client_keys=None if key is None else [key],
        known_hosts=hosts,
        config=None,
        agent_path=None,
        gss_auth=False,
        gss_kex=False,
        connect_timeout=CONNECT_SECONDS,
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=SILENCE_SECONDS,
    )


def _known_hosts(connection: SftpConnection) -> asyncssh.SSHKnownHosts | None:
    """A line that begins with the key itself is meant for this host."""
    lines = [line.strip() for line in (connection.known_hosts or "").splitlines() if line.strip()]
    if not lines:
        return None
    try:
        return asyncssh.import_known_hosts(
            "\n".join(f"* {line}" if line.startswith(_KEY_TYPES) else line for line in lines)
        )
    except ValueError as exc:
        raise AgentError(
            failures.INVALID_CONNECTION, f"known_hosts of {connection.host} cannot be read: {exc}"
        ) from exc


def _private_key(connection: SftpConnection) -> asyncssh.SSHKey | None:
    if connection.private_key is None:
        return None
    phrase = None if connection.passphrase is None else connection.passphrase.get_secret_value()
    try:
        return asyncssh.import_private_key(connection.private_key.get_secret_value().strip() + "\n", phrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError):
        message = f"the private key for {connection.host} cannot be read: it is damaged, or its passphrase is another"
        raise AgentError(failures.INVALID_CONNECTION, message) from None  # the cause may hold parts of the key


async def _refused(
    connection: SftpConnection, hosts: asyncssh.SSHKnownHosts, error: asyncssh.Error | OSError
) -> AgentError:
    where = f"{connection.host}:{connection.port}"
    match error:
        case asyncssh.PermissionDenied():
            message = f"{where} does not let {connection.username!r} in with this password or key"
            return AgentError(failures.AUTH_FAILED, message, attributes={"username": connection.username})
        case asyncssh.HostKeyNotVerifiable():
            return _untrusted(where, known=any(_keys_of(connection, hosts)))
        case asyncssh.KeyExchangeFailed() | asyncssh.ConnectionLost() | ConnectionError():
            if await _shows_another_kind(connection, hosts):
                return _untrusted(where, known=True)
            return _unreachable(where, error)
        case _:
            return _unreachable(where, error)


def _untrusted(where: str, *, known: bool) -> AgentError:
    if known:
        message = f"{where} shows another key than known_hosts has: it was set up anew, or it is not that host"
        return AgentError(failures.HOST_KEY_CHANGED, message)
    return AgentError(failures.HOST_KEY_UNKNOWN, f"known_hosts has no key of {where}; add the line of that host")


def _keys_of(connection: SftpConnection, hosts: asyncssh.SSHKnownHosts) -> tuple[Sequence[object], ...]:
    return hosts.match(connection.host, "", None if connection.port == _SSH_PORT else connection.port)


async def _shows_another_kind(connection: SftpConnection, hosts: asyncssh.SSHKnownHosts) -> bool:
    """A host that has no key of the kind we ask for hangs up, and nobody says why."""
    trusted, authorities, *_ = _keys_of(connection, hosts)
    shown = None if authorities or not trusted else await _shown_key(connection)
    return shown is not None and shown not in trusted


def _unreachable(where: str, error: Exception) -> AgentError:
    reason = str(error) or type(error).__name__
    return AgentError(failures.CONNECTION_ERROR, f"{where} cannot be reached: {reason}", category="transient")


async def _unknown_host(connection: SftpConnection) -> AgentError:
    """What the host shows is told, so that it can be compared with what its operator says."""
    where = f"{connection.host}:{connection.port}"
    key = await _shown_key(connection)
    shown = "" if key is None else f" (it shows {key.get_algorithm()} {key.get_fingerprint()})"
    message = (
        f"the connection has no known_hosts, so {where}{shown} is not trusted. Set it to what `ssh-keyscan` prints, "
        "once its operator has said that this is its key"
    )
    return AgentError(failures.HOST_KEY_UNKNOWN, message)


async def _shown_key(connection: SftpConnection) -> asyncssh.SSHKey | None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncssh.get_server_host_key(connection.host, connection.port, config=None)
    except (OSError, asyncssh.Error):
        return None
