"""`.runtara/dev.json`, and telling processes apart."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtara.infra import discovery
from runtara.infra.discovery import DevRecord
from runtara.infra.processes import ProcessId
from tests.support.polling import eventually


def _record(process: ProcessId) -> DevRecord:
    return DevRecord(process=process, nats_url="nats://127.0.0.1:1", nats_user="u", nats_password="p")


def test_what_dev_writes_is_read_back_and_private(tmp_path: Path) -> None:
    record = _record(ProcessId.current())
    path = discovery.write(record, tmp_path)

    assert discovery.read(tmp_path) == record
    assert record.is_live()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / ".runtara" / ".gitignore").read_text() == "*\n"
    assert {file.name for file in path.parent.iterdir()} == {".gitignore", "dev.json"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"nats_url": 1}', b"\xff"])
def test_a_damaged_file_is_no_file(tmp_path: Path, content: bytes) -> None:
    discovery.make_folder(tmp_path)
    discovery.path_in(tmp_path).write_bytes(content)
    assert discovery.read(tmp_path) is None


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    discovery.write(_record(ProcessId(pid=os.getpid(), started="another")), tmp_path)
    discovery.remove(tmp_path)
    assert discovery.read(tmp_path) is not None

    discovery.write(_record(ProcessId.current()), tmp_path)
    discovery.remove(tmp_path)
    discovery.remove(tmp_path)
    assert discovery.read(tmp_path) is None


def test_a_reused_pid_is_another_process() -> None:
    assert not ProcessId(pid=os.getpid(), started="earlier").is_alive()
    assert ProcessId.current().is_alive()


async def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220 - asyncio would reap it
    identity = ProcessId.of(child.pid)
    assert identity.is_alive()
    child.kill()  # and nobody waits for it
    await eventually(lambda: not identity.is_alive())
    with pytest.raises(ProcessLookupError):
        ProcessId.of(child.pid)
    child.communicate()


def test_a_gone_process_is_not_signalled() -> None:
    import signal

    assert not ProcessId(pid=os.getpid(), started="earlier").send(signal.SIGKILL)
