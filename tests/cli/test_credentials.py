"""`runtara credential`: what is issued, listed, revoked, and never shown unasked."""

import json
import stat
from pathlib import Path

import pytest

from runtara.infra.credentials.files import load, parse
from runtara.infra.credentials.keyring import KeyRing
from runtara.protocol.credentials import Kind

from .conftest import Shell

pytestmark = pytest.mark.timeout(120)
INPUT = '{"order_ids": ["o-1"]}'


def as_holder(shell: Shell, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """From here on the shell knows the address and this credential, and nothing else of the platform."""
    dev = json.loads((shell.folder / ".runtara" / "dev.json").read_text())
    monkeypatch.setenv("RUNTARA_NATS_URL", dev["nats_url"])
    monkeypatch.setenv("RUNTARA_NATS_CREDENTIALS", str(shell.folder / file))


def test_dev_leaves_a_clients_credential_and_points_to_the_keys(shell: Shell) -> None:
    dev = json.loads((shell.folder / ".runtara" / "dev.json").read_text())
    holder = load(dev["nats_credentials"]).holder
    assert holder is not None
    assert (holder.kind, holder.tenant, holder.user) == (Kind.CLIENT, "default", dev["nats_client"])
    for file in (".runtara/dev.json", dev["nats_credentials"], dev["nats_keys"]):
        assert stat.S_IMODE((shell.folder / file).stat().st_mode) == 0o600
    assert "nats_password" not in dev


def test_another_tenant_of_the_same_dev_is_a_flag_away(shell: Shell) -> None:
    assert shell.lines("list", "--tenant", "other") == []
    done = shell.run("start", "orders", "--tenant", "other", "--input", INPUT)
    assert done.returncode == 3, "no worker of that tenant has registered it"


def test_a_credential_is_used_by_who_knows_nothing_else_until_it_is_revoked(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = shell.lines("credential", "create", "--name", "ci", "--expires", "2h")
    assert made.keys() >= {"public_key", "tenant", "kind", "user", "name", "file", "expires_at"}
    assert (made["tenant"], made["kind"], made["file"]) == ("default", "client", "default-ci.creds")
    assert stat.S_IMODE((shell.folder / made["file"]).stat().st_mode) == 0o600
    (listed,) = [view for view in shell.lines("credential", "list") if view["name"] == "ci"]
    assert (listed["public_key"], listed["revoked_at"]) == (made["public_key"], None)
    again = shell.run("credential", "create", "--name", "ci")
    assert (again.returncode, "not overwritten" in again.stderr) == (2, True)

    with monkeypatch.context() as elsewhere:
        as_holder(shell, elsewhere, made["file"])
        waited = shell.run("start", "orders", "--input", INPUT, "--wait", "--json")
        assert json.loads(waited.stdout)["result"], waited.stderr
        denied = shell.run("credential", "list", "--json")
        assert denied.returncode == 5
        assert json.loads(denied.stderr.splitlines()[-1])["error"]["code"] == "CredentialRefused"

    (revoked,) = shell.lines("credential", "revoke", "--name", "ci")
    assert revoked["public_key"] == made["public_key"]
    assert shell.run("credential", "revoke", made["public_key"]).returncode == 3
    with monkeypatch.context() as elsewhere:
        as_holder(shell, elsewhere, made["file"])
        refused = shell.run("list")
        assert refused.returncode == 5
        assert "been revoked" in refused.stderr
    shown = shell.run("credential", "list", "--all").stdout
    assert made["public_key"] in shown


def test_a_read_only_credential_lists_and_starts_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("credential", "create", "--read-only", "--out", "reader.creds")
    with monkeypatch.context() as elsewhere:
        as_holder(shell, elsewhere, "reader.creds")
        assert shell.run("list").returncode == 0
        refused = shell.run("start", "orders", "--input", INPUT)
        assert refused.returncode == 5
        assert "no right to it" in refused.stderr
        other = shell.run("list", "--tenant", "other")
        assert other.returncode == 5
        assert "runtara credential create --tenant other" in other.stderr


def test_a_secret_is_printed_only_when_asked_for(shell: Shell) -> None:
    told = shell.run("credential", "create", "--name", "quiet", "--json")
    assert "SEED" not in told.stdout + told.stderr
    printed = shell.run("credential", "create", "--out", "-")
    assert parse(printed.stdout).holder is not None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["revoke"], 2, "say which"),
        (["revoke", "UNKNOWN"], 3, "no such credential"),
        (["create", "--expires", "soon"], 2, "not an age"),
        (["create", "--kind", "runner", "--read-only"], 2, "only a client"),
        (["create", "--tenant", "a.b"], 2, "not a legal tenant"),
        (["create", "--kind", "engine"], 2, "engine"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    done = shell.run("credential", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_keys_of_a_server_of_ones_own_are_drawn_once(shell: Shell, tmp_path: Path) -> None:
    (files,) = shell.lines("credential", "init", str(tmp_path / "keys"), "--resolver", "/data/accounts")
    ring = KeyRing.load(Path(files["keys"]))
    configuration = Path(files["configuration"]).read_text()
    assert f"operator: {ring.operator_jwt}" in configuration
    assert 'dir: "/data/accounts"' in configuration
    assert stat.S_IMODE(Path(files["operator"]).stat().st_mode) == 0o600
    again = shell.run("credential", "init", str(tmp_path / "keys"))
    assert (again.returncode, "kept" in again.stderr) == (2, True)


def test_keys_that_are_there_are_kept_if_asked_and_the_servers_part_is_written_anew(
    shell: Shell, tmp_path: Path
) -> None:
    """As the service `keys` of the compose file does at each start."""
    told = tmp_path / "operator.conf"
    command = ("credential", "init", str(tmp_path / "keys"), "--keep", "--configuration", str(told))
    (files,) = shell.lines(*command)
    drawn, first = Path(files["keys"]).read_bytes(), told.read_text()
    told.unlink()
    assert shell.lines(*command) == [files]
    assert Path(files["keys"]).read_bytes() == drawn
    assert told.read_text().splitlines()[0] == first.splitlines()[0]
    assert stat.S_IMODE(told.stat().st_mode) == 0o644, "the server is another user, and none of it is secret"


def test_a_credential_that_is_good_is_kept_if_asked_and_another_kind_takes_its_place(shell: Shell) -> None:
    command = ("credential", "create", "--out", "kept.creds", "--keep")
    assert shell.run(*command, "--kind", "runner").returncode == 0
    made = (shell.folder / "kept.creds").read_text()
    assert shell.run(*command, "--kind", "runner").returncode == 0
    assert (shell.folder / "kept.creds").read_text() == made
    assert shell.run(*command, "--kind", "runner", "--expires", "1h", "--tenant", "other").returncode == 0
    holder = parse((shell.folder / "kept.creds").read_text()).holder
    assert holder is not None
    assert (holder.kind, holder.tenant) == (Kind.RUNNER, "other")
    assert shell.run("credential", "create", "--keep").returncode == 2


def test_info_asks_with_the_credential_that_it_was_given_and_has_none_issued(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A health check asks all the time; a runner's has nothing else to show."""
    shell.run("credential", "create", "--kind", "runner", "--out", "pool.creds")
    before = shell.lines("credential", "list", "--all")
    assert shell.run("info").returncode == 0
    with monkeypatch.context() as elsewhere:
        as_holder(shell, elsewhere, "pool.creds")
        assert shell.run("info").returncode == 0
    issued = {view["public_key"] for view in shell.lines("credential", "list", "--all")}
    assert issued == {view["public_key"] for view in before}
