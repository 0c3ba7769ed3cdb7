"""Where settings come from, in which order, and what is refused."""

from pathlib import Path

import pytest

from runtara.infra import discovery
from runtara.infra.discovery import DevRecord
from runtara.infra.processes import ProcessId
from runtara.infra.settings import Settings
from runtara.protocol.errors import InvalidId, InvalidSetting, PlatformUnreachable


def _dev(directory: Path, *, started: str | None = None) -> DevRecord:
    process = ProcessId.current()
    record = DevRecord(
        process=ProcessId(pid=process.pid, started=started or process.started),
        nats_url="nats://127.0.0.1:1",
        nats_password="from dev",
        tenant="from-dev",
    )
    discovery.write(record, directory)
    return record


@pytest.mark.smoke
def test_a_flag_beats_the_environment_beats_dev_beats_the_default(tmp_path: Path) -> None:
    _dev(tmp_path)
    environ = {"RUNTARA_TENANT": "from-environ", "RUNTARA_NATS_PASSWORD": "from environ"}

    settings = Settings.load({"tenant": "from-flag", "deployment": None}, environ=environ, directory=tmp_path)

    assert settings.tenant == "from-flag"
    assert settings.nats_password == "from environ"
    assert settings.nats_url == "nats://127.0.0.1:1"
    assert settings.deployment == "runtara"


def test_an_empty_variable_is_not_given(tmp_path: Path) -> None:
    assert Settings.load(environ={"RUNTARA_TENANT": ""}, directory=tmp_path).tenant == "default"


def test_the_file_of_a_dead_dev_is_not_used_and_the_error_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _dev(tmp_path, started="before the last boot")
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(environ={})
    assert settings.nats_url is None
    with pytest.raises(PlatformUnreachable, match="no longer running"):
        settings.require_nats_url()


def test_a_missing_address_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlatformUnreachable, match="RUNTARA_NATS_URL"):
        Settings().require_nats_url()
    with pytest.raises(InvalidSetting, match="RUNTARA_DATABASE_URL"):
        Settings().require_database_url()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "sqlite+aiosqlite://"])
def test_sqlite_gets_a_clear_answer(url: str) -> None:
    with pytest.raises(InvalidSetting, match="SQLite is not supported"):
        Settings.load(environ={"RUNTARA_DATABASE_URL": url})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("LOG_LEVEL", "loud", "use one of debug, info"),
        ("LOG_FORMAT", "xml", "use one of json, console"),
        ("CONCURRENCY", "many", "use a number"),
        ("CONCURRENCY", "0", "use at least 1"),
        ("DRAIN_SECONDS", "-1", "use at least 0"),
        ("DRAIN_SECONDS", "nan", "use at least 0"),
        ("DEPLOYMENT", "A.b", "lower-case letters"),
        ("NATS_URL", "http://x", "nats://host:port"),
        ("DATABASE_URL", "mysql://u:secret@h/db", "postgresql://"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name: str, value: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=says) as raised:
        Settings.load(environ={f"RUNTARA_{name}": value}, directory=tmp_path)
    assert name.lower() in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_illegal_tenant_is_refused() -> None:
    with pytest.raises(InvalidId):
        Settings(tenant="a.b")


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(tenant="t", concurrency=3, drain_seconds=1.5, nats_url="nats://h:1", log_format="json")
    assert Settings.load(environ=settings.to_environ(), directory=tmp_path) == settings


def test_passwords_are_not_shown() -> None:
    shown = repr(Settings(nats_password="hunter2", database_url="postgresql://u:hunter2@h/db"))
    assert "hunter2" not in shown


def test_a_setting_that_does_not_exist_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Settings.load({"tennant": "x"}, environ={}, directory=tmp_path)


def test_a_secret_may_come_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    environ = {"RUNTARA_NATS_PASSWORD_FILE": str(tmp_path / "password")}
    assert Settings.load(environ=environ, directory=tmp_path).nats_password == "hunter2"
    given = {**environ, "RUNTARA_NATS_PASSWORD": "other"}
    assert Settings.load(environ=given, directory=tmp_path).nats_password == "other"
    with pytest.raises(InvalidSetting, match="nats_password_file"):
        Settings.load(environ={"RUNTARA_NATS_PASSWORD_FILE": str(tmp_path / "nothing")}, directory=tmp_path)
    assert Settings.load(environ={"RUNTARA_TENANT_FILE": "x"}, directory=tmp_path).tenant == "default"  # no secret
