"""The SFTP agent against a real OpenSSH server."""

import asyncio
import base64
import contextlib
import gc
import os
import shutil
import tempfile
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtara.agents import AgentError
from runtara.agents.agent import agent_of
from runtara.agents.calls import call
from runtara.agents.connections import Connection, parse_connection
from runtara.agents.sftp import Sftp, patience, transfer, turns
from tests.support.disk import small_disk
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of
from tests.support.sshd import NOBODY, PASSPHRASE, PASSWORD, Sshd, make_key, sshd

SFTP = agent_of(Sftp)
CONTENT = base64.b64encode(os.urandom(20 * 1024 * 1024)).decode()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may pass, as sessions run as somebody else."""
    made = Path(tempfile.mkdtemp(prefix="sshd-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Sshd]:
    with sshd(place / "shared") as made:
        yield made


@pytest.fixture
def files(server: Sshd) -> Iterator[Path]:
    """The user's folder, empty."""
    yield server.files
    for entry in server.files.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def connect(server: Sshd, **fields: object) -> Connection:
    login: dict[str, object] = {"private_key": server.key()}
    known = {"host": "127.0.0.1", "port": server.port, "username": server.user, "known_hosts": server.known_hosts}
    every = {**known, **(login if not {"password", "private_key"} & fields.keys() else {}), **fields}
    return parse_connection("sftp", {name: value for name, value in every.items() if value is not None})


async def do(connection: Connection, id: str, **inputs: object) -> Any:
    return await call(SFTP.capabilities[f"sftp-{id}"], inputs, connection=connection)


async def fails(connection: Connection, id: str, **inputs: object) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await do(connection, id, **inputs)
    return caught.value


def given(path: Path) -> Path:
    """To the user that the server's sessions run as."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return given(path)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return given(path)


# what it does


async def test_a_file_goes_there_is_listed_comes_back_and_is_deleted(server: Sshd, files: Path) -> None:
    here, path = connect(server), f"{files}/grüße 世界.txt"
    assert await do(here, "upload-file", path=path, content="grüße\n") == 8
    assert Path(path).read_text() == "grüße\n"
    (entry,) = await do(here, "list-files", path=str(files))
    assert entry == {
        "name": "grüße 世界.txt", "path": path, "size": 8, "is_directory": False,
        "modified_time": int(Path(path).stat().st_mtime),
    }  # fmt: skip
    assert await do(here, "download-file", path=path) == "grüße\n"
    assert await do(here, "delete-file", path=path) == {"success": True, "path": path}
    assert await do(here, "delete-file", path=path) == {"success": False, "path": path}
    assert list(files.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 32_768, 2 * 1024 * 1024, 5_000_001])
async def test_bytes_of_any_number_come_back_as_they_went(server: Sshd, files: Path, size: int) -> None:
    here, content = connect(server), os.urandom(size)
    encoded = base64.b64encode(content).decode()
    await do(here, "upload-file", path=f"{files}/a", content=encoded, content_format="base64")
    assert (files / "a").read_bytes() == content
    assert await do(here, "download-file", path=f"{files}/a", response_format="base64") == encoded


async def test_a_name_may_be_as_long_as_the_server_takes(server: Sshd, files: Path) -> None:
    for name in ("a" * 255, "世" * 85):
        await do(connect(server), "upload-file", path=f"{files}/{name}", content="x")
        assert (files / name).read_text() == "x"


async def test_content_may_be_a_file_object_or_bytes(server: Sshd, files: Path) -> None:
    here = connect(server)
    for content in ({"content": "AP8=", "filename": "x"}, [0, 255]):
        await do(here, "upload-file", path=f"{files}/a", content=content)
        assert (files / "a").read_bytes() == b"\0\xff"


async def test_a_folder_is_listed_by_name_with_its_folders(server: Sshd, files: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (files / name).write_bytes(b"x")
    (files / "c").mkdir()
    found = await do(connect(server), "list-files", path=f"{files}/")
    assert [(one["name"], one["is_directory"]) for one in found] == [
        (".hidden", False), ("a", False), ("b", False), ("c", True),
    ]  # fmt: skip
    assert await do(connect(server), "list-files", path=f"{files}/c") == []


async def test_relative_paths_begin_where_the_login_does(server: Sshd, files: Path) -> None:
    if not server.has_passwords:
        pytest.skip("the home of who runs the tests is not ours")
    here = connect(server)
    assert await do(here, "upload-file", path="a.txt", content="x") == 1
    assert [(one["name"], one["path"]) for one in await do(here, "list-files", path=".")] == [("a.txt", "a.txt")]


async def test_a_file_is_replaced_whole_and_keeps_its_permissions(server: Sshd, files: Path) -> None:
    written(files / "a", "a longer text than the new").chmod(0o640)
    await do(connect(server), "upload-file", path=f"{files}/a", content="new")
    assert ((files / "a").read_text(), (files / "a").stat().st_mode & 0o777) == ("new", 0o640)
    assert [entry.name for entry in files.iterdir()] == ["a"]


# what fails


@pytest.mark.parametrize(
    ("id", "path", "code"),
    [
        ("download-file", "missing", "SFTP_FILE_NOT_FOUND"),
        ("list-files", "missing", "SFTP_FILE_NOT_FOUND"),
        ("upload-file", "missing/a", "SFTP_FILE_NOT_FOUND"),
        ("download-file", "locked/a", "SFTP_PERMISSION_DENIED"),
        ("list-files", "locked", "SFTP_PERMISSION_DENIED"),
        ("upload-file", "locked/a", "SFTP_PERMISSION_DENIED"),
        ("delete-file", "locked/a", "SFTP_PERMISSION_DENIED"),
        ("download-file", "folder", "SFTP_FAILED"),
        ("delete-file", "folder", "SFTP_FAILED"),
        ("upload-file", "folder", "SFTP_FAILED"),
    ],
)
async def test_what_the_server_refuses_is_a_permanent_error(
    server: Sshd, files: Path, id: str, path: str, code: str
) -> None:
    folder(files / "folder")
    (files / "locked").mkdir(mode=0o700)
    if os.geteuid() != 0:
        (files / "locked").chmod(0)
    content = {"content": "x"} if id == "upload-file" else {}
    error = await fails(connect(server), id, path=f"{files}/{path}", **content)
    (files / "locked").chmod(0o700)
    assert (error.code, error.permanent, error.attributes["path"]) == (code, True, f"{files}/{path}")
    assert [entry.name for entry in files.iterdir() if entry.name.startswith(".")] == []


async def test_a_file_that_is_no_text_says_how_to_ask_for_it(server: Sshd, files: Path) -> None:
    (files / "a").write_bytes(b"\xff")
    error = await fails(connect(server), "download-file", path=f"{files}/a")
    assert (error.code, "base64" in error.message) == ("AGENT_INVALID_DATA", True)


async def test_files_above_the_limit_are_refused(server: Sshd, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_FILE_BYTES", 1000)
    (files / "a").write_bytes(b"x" * 1001)
    here = connect(server)
    assert (await fails(here, "download-file", path=f"{files}/a")).code == "SFTP_TOO_LARGE"
    assert (await fails(here, "upload-file", path=f"{files}/b", content="x" * 1001)).code == "SFTP_TOO_LARGE"
    assert not (files / "b").exists()


@pytest.mark.parametrize(
    "path",
    ["", "..", "../a", "/data/../etc/passwd", "a/../../b", "a\0b", "a\nb", "a\x7f", "a" * 5_000, "\ud800"],
)
async def test_paths_with_tricks_never_reach_the_server(path: str) -> None:
    nowhere = parse_connection("sftp", {"host": "127.0.0.1", "port": 1, "username": "u", "password": "p"})
    for id in ("list-files", "download-file", "upload-file", "delete-file"):
        error = await fails(nowhere, id, path=path, **({"content": ""} if id == "upload-file" else {}))
        assert error.code in ("SFTP_INVALID_PATH", "STEP_INVALID_INPUT")
        assert error.permanent


@pytest.mark.parametrize("path", ["a/", "a/.", "."])
async def test_a_file_has_a_name(path: str) -> None:
    nowhere = parse_connection("sftp", {"host": "127.0.0.1", "port": 1, "username": "u", "password": "p"})
    assert (await fails(nowhere, "upload-file", path=path, content="")).code == "SFTP_INVALID_PATH"


async def test_a_base_is_not_left_by_a_path_nor_by_a_link(server: Sshd, files: Path) -> None:
    base, outside = folder(files / "base"), folder(files / "outside")
    (outside / "secret").write_text("secret")
    (base / "link").symlink_to(outside)
    (base / "file").symlink_to(outside / "secret")
    here = connect(server, base_path=f"{base}/")
    assert await do(here, "upload-file", path="a.txt", content="x") == 1
    assert await do(here, "download-file", path=f"{base}/a.txt") == "x"
    assert [one["name"] for one in await do(here, "list-files", path=".")] == [
        "a.txt",
        "file",
        "link",
    ]
    for id, path in (
        ("download-file", f"{outside}/secret"),
        ("download-file", f"{base}-other/secret"),
        ("download-file", "/etc/passwd"),
        ("download-file", "link/secret"),
        ("download-file", "file"),
        ("list-files", "link"),
        ("list-files", "/"),
        ("upload-file", "link/new"),
        ("delete-file", "link/secret"),
    ):
        error = await fails(here, id, path=path, **({"content": "y"} if id == "upload-file" else {}))
        assert error.code == "SFTP_INVALID_PATH", (id, path)
    assert [entry.name for entry in outside.iterdir()] == ["secret"]


# who is let in, and who is believed


@pytest.mark.parametrize(
    "login",
    [{"private_key": "user_key"}, {"private_key": "locked_key", "passphrase": PASSPHRASE}, {"password": PASSWORD}],
)
async def test_it_logs_in_by_password_and_by_key(server: Sshd, files: Path, login: dict[str, str]) -> None:
    if "password" in login and not server.has_passwords:
        pytest.skip("only root can give a server of its own a password")
    fields = {name: server.key(value) if name == "private_key" else value for name, value in login.items()}
    assert await do(connect(server, **fields), "list-files", path=str(files)) == []


@pytest.mark.parametrize(
    ("login", "code"),
    [
        ({"private_key": "other_key"}, "SFTP_AUTH_FAILED"),
        ({"password": "wrong password"}, "SFTP_AUTH_FAILED"),
        ({"private_key": "locked_key", "passphrase": "wrong phrase"}, "SFTP_INVALID_CONNECTION"),
        ({"private_key": "locked_key"}, "SFTP_INVALID_CONNECTION"),
        ({"private_key": "damaged"}, "SFTP_INVALID_CONNECTION"),
        ({"private_key": None}, "SFTP_NO_AUTH_METHOD"),
    ],
)
async def test_a_wrong_login_is_a_permanent_error_that_shows_no_secret(
    server: Sshd, files: Path, login: dict[str, Any], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fields = dict(login)
    if name := login.get("private_key"):
        fields["private_key"] = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n" if name == "damaged" else server.key(name)
    with pytest.raises(AgentError) as caught:
        await do(connect(server, **fields), "list-files", path=str(files))
    assert (caught.value.code, caught.value.permanent) == (code, True)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.to_record()) + caplog.text
    assert not [value for value in fields.values() if value and value in shown]


async def test_the_keys_of_this_machine_are_not_tried(
    server: Sshd, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text(server.key())
    (tmp_path / ".ssh" / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    error = await fails(connect(server, password="wrong password"), "list-files", path=str(files))
    assert error.code == "SFTP_AUTH_FAILED"


@pytest.mark.parametrize("form", ["line", "key", "scan", "hashed"])
async def test_the_hosts_key_may_be_written_in_every_form(server: Sshd, files: Path, form: str, tmp_path: Path) -> None:
    line = server.known_hosts
    host, kind, key = line.split()
    text = {"line": line, "key": f"{kind} {key} root@files", "scan": f"# {host} SSH-2.0\n{line}\n", "hashed": line}[
        form
    ]
    if form == "hashed":
        (tmp_path / "known_hosts").write_text(line + "\n")
        hashing = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-H", "-f", str(tmp_path / "known_hosts"), stdout=-3, stderr=-3
        )
        await hashing.wait()
        text = (tmp_path / "known_hosts").read_text()
        assert text.startswith("|1|")
    assert await do(connect(server, known_hosts=text), "list-files", path=str(files)) == []


async def test_a_host_whose_key_is_not_known_is_told_and_not_trusted(server: Sshd, files: Path) -> None:
    error = await fails(connect(server, known_hosts=None), "list-files", path=str(files))
    assert (error.code, error.permanent) == ("SFTP_HOST_KEY_UNKNOWN", True)
    assert "ssh-ed25519 SHA256:" in error.message
    other = server.known_hosts.replace("127.0.0.1", "files.example.org")
    error = await fails(connect(server, known_hosts=other), "list-files", path=str(files))
    assert error.code == "SFTP_HOST_KEY_UNKNOWN"
    error = await fails(connect(server, known_hosts="nonsense"), "list-files", path=str(files))
    assert error.code == "SFTP_INVALID_CONNECTION"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
async def test_a_host_whose_key_has_changed_is_refused_before_it_hears_a_secret(
    server: Sshd, files: Path, tmp_path: Path, kind: str
) -> None:
    make_key(tmp_path / "old", kind=kind)
    public = " ".join((tmp_path / "old.pub").read_text().split()[:2])
    known = f"[127.0.0.1]:{server.port} {public}"
    before = (server.folder / "sshd.log").read_text().count("for ada")
    error = await fails(connect(server, known_hosts=known, password=PASSWORD), "list-files", path=str(files))
    assert (error.code, error.permanent) == ("SFTP_HOST_KEY_CHANGED", True), error.message
    assert (server.folder / "sshd.log").read_text().count("for ada") == before


async def test_a_server_that_is_not_there_is_a_transient_error(server: Sshd) -> None:
    error = await fails(connect(server, port=1), "list-files", path="/")
    assert (error.code, error.category) == ("SFTP_CONNECTION_ERROR", "transient")


async def test_many_at_once_take_turns(server: Sshd, files: Path) -> None:
    """More than OpenSSH lets in at once."""
    here = connect(server)
    uploads = (do(here, "upload-file", path=f"{files}/{number}", content="x") for number in range(30))
    assert await asyncio.gather(*uploads) == [1] * 30
    assert len(list(files.iterdir())) == 30


async def test_a_server_has_a_bounded_number_of_sessions() -> None:
    now = most = 0

    async def take(port: int) -> None:
        nonlocal now, most
        async with turns.turn("files.example.org", port):
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(take(22) for _ in range(30)))
    assert most == turns.MAX_SESSIONS
    await asyncio.gather(*(take(port) for port in range(30)))
    assert most == 30, "other servers are not waited for"


# what breaks in the middle


@pytest.fixture
async def proxy(server: Sshd) -> AsyncIterator[Proxy]:
    async with proxy_of(f"tcp://127.0.0.1:{server.port}") as made:
        yield made


def through(server: Sshd, proxy: Proxy) -> Connection:
    port = int(proxy.url.rsplit(":", 1)[1])
    return connect(server, port=port, known_hosts=server.known_hosts.replace(str(server.port), str(port)))


def begun(files: Path) -> list[Path]:
    return [entry for entry in files.iterdir() if entry.name.endswith(".part") and entry.stat().st_size]


@pytest.mark.parametrize("old", [None, "the old content"])
async def test_a_connection_that_is_cut_in_mid_upload_leaves_nothing_half_written(
    server: Sshd, files: Path, proxy: Proxy, old: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if old is not None:
        written(files / "a", old)
    here = through(server, proxy)
    upload = asyncio.create_task(
        fails(here, "upload-file", path=f"{files}/a", content=CONTENT, content_format="base64")
    )
    await eventually(lambda: bool(begun(files)))
    proxy.hold()  # whatever is under way, the end of the file does not get through
    await proxy.cut()
    error = await upload
    assert (error.code, error.category) == ("SFTP_CONNECTION_ERROR", "transient")
    assert ((files / "a").read_text() if (files / "a").exists() else None) == old
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []  # no errors that nobody took

    await proxy.mend()
    await do(here, "upload-file", path=f"{files}/a", content=CONTENT, content_format="base64")
    assert (files / "a").read_bytes() == base64.b64decode(CONTENT)


async def test_a_server_that_hangs_in_mid_upload_is_left(
    server: Sshd, files: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(patience, "TIDY_SECONDS", 0.1)
    here = through(server, proxy)
    upload = asyncio.create_task(
        fails(here, "upload-file", path=f"{files}/a", content=CONTENT, content_format="base64")
    )
    await eventually(lambda: bool(begun(files)))
    proxy.hold()
    error = await upload
    assert (error.code, error.category) == ("SFTP_CONNECTION_ERROR", "transient")
    assert not (files / "a").exists()


async def test_an_upload_that_is_cancelled_tidies_up(server: Sshd, files: Path, proxy: Proxy) -> None:
    upload = asyncio.create_task(
        do(through(server, proxy), "upload-file", path=f"{files}/a", content=CONTENT, content_format="base64")
    )
    await eventually(lambda: bool(begun(files)))
    upload.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await upload
    assert upload.cancelled()
    assert list(files.iterdir()) == []


async def test_a_full_disk_is_a_transient_error_and_leaves_nothing(place: Path) -> None:
    """A server of its own, which sees the disk: it is mounted first."""
    with small_disk(place / "disk", megabytes=2) as disk, sshd(place / "server") as server:
        given(disk.folder)
        here, path = connect(server), f"{disk.folder}/a"
        await do(here, "upload-file", path=path, content="old")
        big = "x" * 3 * 1024 * 1024
        for _ in range(2):  # what the first began does not take room from the second
            error = await fails(here, "upload-file", path=path, content=big)
            assert (error.code, error.category) == ("SFTP_NO_SPACE", "transient")
            assert [entry.name for entry in disk.folder.iterdir()] == ["a"]
        assert (disk.folder / "a").read_text() == "old"
