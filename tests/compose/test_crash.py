"""The embedded servers when the process that holds them dies, and as different users."""

import asyncio
import json
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from runtara.compose import installation, nats_server, supervisor
from runtara.compose.embedded import EmbeddedServers
from runtara.compose.identity import OURSELVES, Identity
from runtara.infra.private_files import write_private
from runtara.infra.processes import ProcessId
from tests.support.polling import eventually

ROOT: Final = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Holder:
    """A running `tests.compose.hold`."""

    def __init__(self, process: asyncio.subprocess.Process, facts: dict[str, str | int]) -> None:
        self.process = process
        self.facts = facts
        self.servers = [ProcessId.of(int(facts[name])) for name in ("nats_pid", "postgres_pid")]


def _python(identity: Identity, *arguments: str) -> list[str]:
    return identity.command(
        [sys.executable, *arguments], folder=ROOT, death_signal=signal.SIGKILL, environment=os.environ
    )


@asynccontextmanager
async def holding(data: Path, *, identity: Identity = OURSELVES) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        *_python(identity, "-m", "tests.compose.hold", str(data)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        assert line, f"the holder ended with {await process.wait()}"
        yield Holder(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_served(database_url: str) -> bool:
    connection = await asyncpg.connect(database_url)
    await connection.close()
    return True


@pytest.mark.smoke
async def test_the_servers_of_a_killed_parent_end_and_the_next_parent_goes_on(data: Path) -> None:
    async with holding(data) as first:
        first.process.send_signal(signal.SIGKILL)
        await first.process.wait()
        async with holding(data) as second:
            assert second.facts["database_url"] == first.facts["database_url"]
            assert second.facts["nats_url"] == first.facts["nats_url"]
            assert not any(server.is_alive() for server in first.servers)
            assert await _is_served(str(second.facts["database_url"]))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
async def test_children_end_with_their_parent_though_nobody_comes_after(data: Path) -> None:
    async with holding(data) as holder:
        holder.process.send_signal(signal.SIGKILL)
        await holder.process.wait()
        await eventually(lambda: not any(server.is_alive() for server in holder.servers), within=20)
        assert "database system is shut down" in (data / "postgres.log").read_text()


async def test_sigterm_stops_the_servers_cleanly(data: Path) -> None:
    async with holding(data) as holder:
        holder.process.send_signal(signal.SIGTERM)
        assert await holder.process.wait() == 0
        assert not any(server.is_alive() for server in holder.servers)


async def test_a_server_that_outlived_its_parent_is_ended_first(data: Path) -> None:
    async with EmbeddedServers(data):
        pass
    spec = nats_server.prepare(data, installation.load(data))
    orphan = await asyncio.create_subprocess_exec(*map(str, spec.command), stderr=asyncio.subprocess.DEVNULL)
    identity = ProcessId.of(orphan.pid)
    write_private(spec.process_note, json.dumps({"pid": orphan.pid, "started": identity.started}).encode())
    await eventually(spec.is_ready)

    async with EmbeddedServers(data) as servers:
        assert not identity.is_alive()
        assert servers.nats.pid != orphan.pid
    await orphan.wait()


async def test_a_note_about_another_process_with_the_same_pid_harms_nobody(data: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    data.mkdir()
    note = supervisor.note_of(data / nats_server.FOLDER)
    note.write_text(json.dumps({"pid": stranger.pid, "started": "an earlier boot"}))
    try:
        async with EmbeddedServers(data):
            assert stranger.returncode is None
    finally:
        stranger.kill()
        assert await stranger.wait() == -signal.SIGKILL


@as_root
async def test_as_root_in_a_folder_where_nobody_may_write(data: Path) -> None:
    data.parent.chmod(0o755)
    async with EmbeddedServers(data) as servers:
        assert _owner_outside(servers.postgres.pid) == pwd.getpwnam("nobody").pw_uid
    assert data.parent.stat().st_uid == 0


@as_root
async def test_as_root_in_a_folder_that_nobody_can_reach(data: Path) -> None:
    data.parent.chmod(0o700)
    async with EmbeddedServers(data) as servers:
        assert await _is_served(servers.database_url)
    assert data.parent.stat().st_mode & 0o777 == 0o700

    data.parent.chmod(0o711)  # and it may become reachable later: the data change their owner
    async with EmbeddedServers(data) as servers:
        assert await _is_served(servers.database_url)
    data.parent.chmod(0o700)
    async with EmbeddedServers(data) as servers:
        assert await _is_served(servers.database_url)


@as_root
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "identity", [Identity(uid=65534, gid=65534), Identity(map_uid=65534)], ids=["nobody", "mapped"]
)
async def test_as_an_ordinary_user(data: Path, end: signal.Signals, identity: Identity) -> None:
    if not await _can_run_python(identity):
        pytest.skip("this user cannot reach this Python")
    data.mkdir()
    os.chown(data, identity.uid or 0, identity.gid or 0)
    async with holding(data, identity=identity) as holder:
        assert _owner_outside(int(holder.facts["postgres_pid"])) == (identity.uid or 0)
        assert await _is_served(str(holder.facts["database_url"]))
        holder.process.send_signal(end)
        await holder.process.wait()
        await eventually(lambda: not any(server.is_alive() for server in holder.servers), within=20)


async def _can_run_python(identity: Identity) -> bool:
    process = await asyncio.create_subprocess_exec(
        *_python(identity, "-c", "import runtara.compose.embedded"), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


def _owner_outside(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
