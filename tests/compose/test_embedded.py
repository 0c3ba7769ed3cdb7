"""The embedded servers in one process: what they promise, what is kept, and what happens when one dies."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
import psutil
import pytest

from runtara.compose import supervisor
from runtara.compose.embedded import EmbeddedServers
from runtara.infra.bus import Bus
from runtara.infra.processes import ProcessId
from runtara.infra.settings import Settings
from runtara.protocol.errors import DataInUse, ServerFailed
from tests.support.platform import connect
from tests.support.polling import eventually


async def _connect(servers: EmbeddedServers) -> Bus:
    return await connect(Settings(nats_url=servers.nats_url, nats_keys=str(servers.nats_keys)))


async def _query(servers: EmbeddedServers, sql: str) -> object:
    connection = await asyncpg.connect(servers.database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.smoke
async def test_what_was_acknowledged_is_there_after_a_restart_under_the_same_addresses(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        addresses = servers.nats_url, servers.nats_keys.read_text(), servers.database_url
        connection = await _connect(servers)
        await connection.nats.jetstream().add_stream(name="S", subjects=["s"])
        await connection.nats.jetstream().publish("s", b"kept")
        await connection.close()
        await _query(servers, "CREATE TABLE t AS SELECT 42 AS x")

    async with EmbeddedServers(data) as servers:
        assert (servers.nats_url, servers.nats_keys.read_text(), servers.database_url) == addresses
        connection = await _connect(servers)
        assert (await connection.nats.jetstream().get_msg("S", 1)).data == b"kept"
        await connection.close()
        assert await _query(servers, "SELECT x FROM t") == 42


async def test_a_folder_of_a_version_without_accounts_is_refused_with_the_reason(data: Path) -> None:
    data.mkdir()
    (data / "servers.json").write_text('{"nats_name": "n", "nats_port": 1, "nats_password": "x"}')
    with pytest.raises(ServerFailed, match="knew no accounts; choose another folder"):
        async with EmbeddedServers(data):
            pass


async def test_nothing_is_weakened(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await _query(servers, f"SHOW {name}") == "on"
        assert await _query(servers, "SHOW data_checksums") == "on"
        assert await _query(servers, "SHOW password_encryption") == "scram-sha-256"
        assert await _query(servers, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
        assert "sync_interval: always" in (data / "nats" / "nats.conf").read_text()


async def test_the_platforms_user_may_not_ask_the_server_about_itself_but_its_supervisor_may(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        connection = await _connect(servers)
        with pytest.raises(nats.errors.NoRespondersError):
            await connection.nats.request("$SYS.REQ.SERVER.PING.HEALTHZ", b"")
        await connection.close()
        assert servers.nats.spec.ails is not None
        assert await servers.nats.spec.ails() is None


async def test_both_servers_want_a_password_and_listen_on_loopback_only(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        for url in (servers.nats_url, servers.database_url):
            assert urlsplit(url).hostname == "127.0.0.1"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(servers.database_url.replace("@", "x@"))
        assert b"Authorization Violation" in await _login_without_password(servers.nats_url)
        assert await _query(servers, "SHOW listen_addresses") == "127.0.0.1"
        assert await _query(servers, "SHOW unix_socket_directories") == ""
        assert _listening_elsewhere(servers.nats.pid, servers.postgres.pid) == []


async def test_secrets_are_readable_by_their_owner_only(data: Path) -> None:
    async with EmbeddedServers(data):
        for path in (data / "servers.json", data / "nats" / "nats.conf", data / "lock", data / "postgres" / "data"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert list((data / "postgres").iterdir()) == [data / "postgres" / "data"]  # no password file is left


@pytest.mark.parametrize("which", ["nats", "postgres"])
async def test_a_killed_server_is_started_again(data: Path, which: str) -> None:
    async with EmbeddedServers(data) as servers:
        server = servers.nats if which == "nats" else servers.postgres
        before = server.pid
        server.kill()
        await eventually(lambda: server.starts == 2, within=30)

        assert server.is_up
        assert server.pid != before
        await (await _connect(servers)).close()
        assert await _query(servers, "SELECT 1") == 1


async def test_an_unsupervised_server_stays_dead_until_it_is_started(data: Path) -> None:
    async with EmbeddedServers(data, supervise=False) as servers:
        servers.nats.kill()
        await eventually(lambda: servers.nats.pid is None)
        await servers.nats.start()
        await (await _connect(servers)).close()


async def test_a_server_can_be_down_for_a_while(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        await servers.postgres.stop()
        assert servers.postgres.pid is None
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncpg.connect(servers.database_url)
        await servers.postgres.start()
        assert await _query(servers, "SELECT 1") == 1


async def test_a_stopped_server_still_ends_with_us(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        process = ProcessId.of(servers.postgres.pid or 0)
        servers.postgres.kill(signal.SIGSTOP)
    assert not process.is_alive()


async def test_no_process_is_left_after_a_clean_stop(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        processes = [ProcessId.of(server.pid or 0) for server in (servers.nats, servers.postgres)]
    assert not any(process.is_alive() for process in processes)
    assert "database system is shut down" in (data / "postgres.log").read_text()


async def test_a_folder_in_use_is_refused_by_name_and_pid(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        with pytest.raises(DataInUse, match=r"in use by another `runtara dev` \(pid \d+\)"):
            await EmbeddedServers(data).__aenter__()
        assert await _query(servers, "SELECT 1") == 1


async def test_a_port_that_another_program_took_is_drawn_again(data: Path) -> None:
    async with EmbeddedServers(data) as servers:
        taken = urlsplit(servers.nats_url).port or 0
    with socket.create_server(("127.0.0.1", taken)):
        async with EmbeddedServers(data) as servers:
            assert urlsplit(servers.nats_url).port != taken
            await (await _connect(servers)).close()


async def test_a_server_that_cannot_start_is_an_error_that_shows_its_log(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MAX_FAILED_STARTS", 2)
    async with EmbeddedServers(data):
        pass
    (data / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerFailed, match="incompatible"):
        await EmbeddedServers(data).__aenter__()


async def test_data_whose_password_is_lost_are_not_touched(data: Path) -> None:
    async with EmbeddedServers(data):
        pass
    (data / "servers.json").unlink()
    with pytest.raises(ServerFailed, match=r"servers\.json is missing"):
        await EmbeddedServers(data).__aenter__()
    assert (data / "postgres" / "data").exists()


async def test_an_initdb_that_was_cut_short_is_begun_again(data: Path) -> None:
    unfinished = data / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    async with EmbeddedServers(data) as servers:
        assert await _query(servers, "SELECT 1") == 1
    assert not unfinished.exists()


async def test_a_lock_file_whose_pid_is_now_another_process_does_not_stop_postgres(data: Path) -> None:
    async with EmbeddedServers(data):
        pass
    stranger = await asyncio.create_subprocess_exec(
        "sleep", "60", user=(data / "postgres" / "data").stat().st_uid if os.geteuid() == 0 else None
    )
    lines = [str(stranger.pid), str(data / "postgres" / "data"), "1700000000", "1", "", "127.0.0.1", "", "stopping"]
    (data / "postgres" / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    try:
        async with EmbeddedServers(data) as servers:
            assert await _query(servers, "SELECT 1") == 1
            assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def _login_without_password(nats_url: str) -> bytes:
    """What the server says to it. By hand, because nats-py leaves the socket of a refused connection open."""
    address = urlsplit(nats_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


def _listening_elsewhere(*pids: int | None) -> list[str]:
    """Addresses beyond loopback on which these processes listen."""
    return [
        f"{connection.laddr.ip}:{connection.laddr.port}"
        for pid in pids
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip != "127.0.0.1"
    ]
