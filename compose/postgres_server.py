"""The embedded Postgres server: a cluster of our own, passwords only, TCP on loopback only, durability untouched.

`initdb` writes into a folder that gets its final name when it is complete, so that a crash in between leaves nothing
that looks like a database. The server runs as its own child process, never through `pg_ctl`, which would detach it.
"""

import asyncio
import secrets
import shutil
import signal
from pathlib import Path
from typing import Final

import asyncpg

from runtara.infra.processes import ProcessId
from runtara.protocol.errors import ServerFailed

from . import binaries
from .identity import Identity, choose
from .installation import LOOPBACK, Installation
from .supervisor import ServerSpec

FOLDER: Final = "postgres"
STOP_SIGNAL: Final = signal.SIGINT  # "fast": ends the sessions, then a checkpoint
_PROBE_SECONDS: Final = 5.0
_OPTIONS: Final = {
    # what an acknowledgement means; these are the defaults, spelled out because everything rests on them
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # who may come in
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # fewer, larger checkpoints: the write-ahead log is short-lived, the tables are append-mostly
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "128MB",
    # our statements are short: planning tricks cost more than they save
    "jit": "off",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


async def prepare(data: Path, installation: Installation) -> ServerSpec:
    """Make the cluster if there is none, and say how to run it."""
    folder = data / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    program = binaries.postgres_program("postgres")
    identity = await choose(program, folder)
    cluster = folder / "data"
    if not cluster.exists():
        await _initdb(folder, cluster, installation, identity)
    _defuse_lock(cluster / "postmaster.pid")
    options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]

    async def is_ready() -> bool:
        return await _answers(installation)

    return ServerSpec(
        name="Postgres",
        command=[program, "-D", cluster, "-p", str(installation.postgres_port), *options],
        folder=folder,
        identity=identity,
        stop_signal=STOP_SIGNAL,
        is_ready=is_ready,
    )


async def _initdb(folder: Path, cluster: Path, installation: Installation, identity: Identity) -> None:
    unfinished = folder / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password = folder / f"password-{secrets.token_hex(8)}"
    password.touch(mode=0o600)
    try:
        password.write_text(installation.postgres_password)
        identity.give(folder)
        await _run_initdb(
            identity,
            folder,
            ["--pgdata", unfinished, "--username", installation.postgres_user, "--pwfile", password],
        )
    finally:
        password.unlink()
    unfinished.rename(cluster)


async def _run_initdb(identity: Identity, folder: Path, arguments: list[str | Path]) -> None:
    fixed = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    process = await asyncio.create_subprocess_exec(
        *identity.command(
            [binaries.postgres_program("initdb"), *arguments, *fixed], folder=folder, death_signal=signal.SIGKILL
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise ServerFailed(server="Postgres", reason=f"initdb failed: {said.decode(errors='replace').strip()}")


def _defuse_lock(lock: Path) -> None:
    """Let Postgres start although the pid that a crash left in its lock file is now somebody else's.

    Postgres itself only asks whether that pid lives. Called when no server of ours runs in the folder. The file
    stays, with a pid that cannot exist: its other lines let Postgres see backends of before that still hold the
    shared memory.
    """
    try:
        pid, *rest = lock.read_text().splitlines()
        holder = ProcessId.of(int(pid))
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    command = Path(f"/proc/{holder.pid}/cmdline")
    if command.exists() and str(lock.parent).encode() not in command.read_bytes():
        lock.write_text("\n".join([str(2**31 - 2), *rest, ""]))


async def _answers(installation: Installation) -> bool:
    try:
        connection = await asyncpg.connect(installation.database_url, timeout=_PROBE_SECONDS, ssl=False)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True
