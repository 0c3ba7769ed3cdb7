"""The data folder of the embedded servers: who uses it, and the ports and passwords that were drawn for it.

Invariants: one live process at a time holds the lock (the kernel gives it up when the process dies, however it
dies); what was drawn once stays, so that addresses survive restarts; files with secrets are readable by their
owner only; no mode of a folder that we did not make is changed.
"""

import contextlib
import fcntl
import os
import random
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from runtara.infra.private_files import write_private
from runtara.protocol.errors import DataInUse, ServerFailed

LOOPBACK: Final = "127.0.0.1"
# Below the range that kernels hand out to outgoing connections: nobody takes the port while a server restarts, and
# a client that reconnects to a closed port of that range can even end up connected to itself.
PORTS: Final = range(20_000, 32_000)
_PORT_TRIES: Final = 200
_FILE: Final = "servers.json"
_LOCK: Final = "lock"


class Installation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was drawn when the folder was made. Kept in `servers.json`."""

    nats_name: str
    nats_port: int
    postgres_port: int
    postgres_user: str = "runtara"
    postgres_password: str

    @property
    def nats_url(self) -> str:
        return f"nats://{LOOPBACK}:{self.nats_port}"

    @property
    def database_url(self) -> str:
        login = f"{self.postgres_user}:{self.postgres_password}"
        return f"postgresql://{login}@{LOOPBACK}:{self.postgres_port}/postgres"


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Make `data` if need be and hold its lock; raises `DataInUse` if a live process holds it."""
    if not data.exists():
        data.mkdir(parents=True, mode=0o711)  # the user that Postgres runs as must pass through
    handle = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataInUse(folder=str(data), pid=os.read(handle, 20).decode() or "unknown") from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def load(data: Path) -> Installation:
    """The installation in `data`, drawn now if there is none; a port that another program took is drawn again."""
    file = data / _FILE
    if file.exists():
        known = _read(file)
        installation = msgspec.structs.replace(
            known, nats_port=_still_free(known.nats_port), postgres_port=_still_free(known.postgres_port)
        )
        if installation == known:
            return known
    elif (data / "postgres" / "data").exists():
        raise ServerFailed(server="Postgres", reason=f"{file} is missing, and with it the password of its data")
    else:
        installation = _draw()
    write_private(file, msgspec.json.format(msgspec.json.encode(installation), indent=2) + b"\n")
    return installation


def _read(file: Path) -> Installation:
    content = file.read_bytes()
    if b'"nats_password"' in content:
        reason = f"{file.parent} was made by a version that knew no accounts; choose another folder with --data"
        raise ServerFailed(server="NATS", reason=reason)
    try:
        return msgspec.json.decode(content, type=Installation)
    except msgspec.MsgspecError as error:
        raise ServerFailed(server="servers", reason=f"{file} is damaged: {error}") from error


def _draw() -> Installation:
    nats_port, postgres_port = _free_port(), _free_port()
    while postgres_port == nats_port:
        postgres_port = _free_port()
    return Installation(
        nats_name=f"runtara-{secrets.token_hex(8)}",
        nats_port=nats_port,
        postgres_port=postgres_port,
        postgres_password=secrets.token_urlsafe(24),
    )


def _still_free(port: int) -> int:
    return port if _is_free(port) else _free_port()


def _free_port() -> int:
    for port in random.sample(PORTS, _PORT_TRIES):
        if _is_free(port):
            return port
    raise ServerFailed(server="servers", reason=f"no free port between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
