"""Other keys in place of those that sign, while work goes on: what was signed before ends when it was said to."""

import asyncio
import dataclasses
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runtara.cli.app import app
from runtara.infra.bus import Bus, LoginRefused
from runtara.infra.credentials import kinds
from runtara.infra.credentials.files import Credential
from runtara.infra.credentials.jwt import read
from runtara.infra.credentials.key_file import KeyFile
from runtara.infra.credentials.keyring import FILE, OPERATOR_FILE, KeyRing
from runtara.infra.credentials.rotation import rotate_users
from runtara.infra.login import CredentialLogin
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidSetting
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.faults import faulty
from tests.support.nats import OwnNats
from tests.support.platform import deploy, running
from tests.support.polling import eventually

from .conftest import TENANT, issued

pytestmark = pytest.mark.timeout(120)
FLOWS = str(Path(faulty.__file__ or ""))
LIFE = 8  # seconds: all that lives is renewed within it
OLD_FOR = 12
STEPS = 2_000  # of 10 ms


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    KeyRing.load_or_create(folder)
    return folder


@pytest.fixture
async def nats(tmp_path: Path, keys: Path) -> AsyncIterator[OwnNats]:
    nats = OwnNats(tmp_path)
    configure(nats, tmp_path)
    async with nats.server:
        await nats.server.wait_up()
        yield nats


@pytest.fixture
def site(settings: Settings, nats: OwnNats, keys: Path) -> Settings:
    return dataclasses.replace(settings, nats_url=nats.url, nats_keys=str(keys), tenant=TENANT)


def configure(nats: OwnNats, folder: Path) -> None:
    """As the keys have it now, for the server's next start."""
    nats.configure(f"max_payload: 8388608\n{KeyRing.load(folder / 'keys').configuration(folder / 'accounts')}")


async def restart(nats: OwnNats, folder: Path) -> None:
    configure(nats, folder)
    await nats.server.stop()
    await nats.server.start()
    await nats.server.wait_up()


async def connected(settings: Settings, credential: Credential) -> Bus:
    assert credential.holder is not None
    return await Bus.connect(
        settings.require_nats_url(), name="t", inbox=credential.holder.inbox, login=CredentialLogin(credential)
    )  # fmt: skip


async def rotate(site: Settings, *arguments: str) -> Result:
    """`runtara credential rotate`; it brings a loop of its own."""
    env = {"RUNTARA_NATS_URL": site.nats_url, "RUNTARA_DEPLOYMENT": site.deployment}
    command = ["credential", "rotate", str(site.nats_keys), "--json", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command, env=env)


@pytest.mark.slow
async def test_users_keys_are_rotated_while_a_workflow_runs_and_what_they_signed_ends(
    site: Settings, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (Kind.WORKER, Kind.RUNNER, Kind.CLIENT):
        monkeypatch.setitem(kinds.LIFE_SECONDS, kind, LIFE)
    await deploy(site)
    await stack.enter_async_context(running(site))
    pool = await stack.enter_async_context(Pool(site, [FLOWS]))
    (worker,) = pool.workers
    client = await stack.enter_async_context(Client(site))
    idle = await issued(site, Kind.CLIENT, "idle", life=3_600)
    bystander = await stack.enter_async_context(await connected(site, idle))
    handle = await client.start(faulty.steps, folder=str(tmp_path), number=1, count=STEPS, id="long")

    done = await rotate(site, "--after", "2s", "--old-for", f"{OLD_FOR}s")
    assert done.exit_code == 0, done.output
    times = json.loads(done.stdout)
    assert times.keys() == {"signs_from", "old_until"}

    announced = await issued(site, Kind.CLIENT, "early", life=3_600)
    assert read(announced.jwt).iss == read(idle.jwt).iss
    await eventually(lambda: KeyRing.load(Path(site.nats_keys or "")).tenant_signing_key(site.deployment, TENANT)
                     != read(idle.jwt).iss)  # fmt: skip
    fresh = await issued(site, Kind.CLIENT, "fresh", life=3_600)
    assert read(fresh.jwt).iss != read(idle.jwt).iss
    assert bystander.is_connected, "what was signed before is still good"
    await stack.enter_async_context(await connected(site, fresh))

    await eventually(lambda: not bystander.is_connected, within=OLD_FOR + 15)
    with pytest.raises(LoginRefused):
        await connected(site, announced)
    assert len(await handle.result(timeout=60)) == STEPS
    assert set(pool.workers) == {worker}, "it was never refused"
    view = await handle.get()
    assert (view.attempt, view.restarts) == (1, 0)
    assert len(faulty.trace(str(tmp_path))) == STEPS


async def test_the_operators_key_is_rotated_with_two_restarts_of_the_server(
    site: Settings, nats: OwnNats, keys: Path, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await deploy(site)
    await stack.enter_async_context(running(site))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    former = KeyRing.load(keys).operator_signing_key

    async def works(id: str) -> None:
        (tmp_path / id).mkdir()
        handle = await client.start(faulty.steps, folder=str(tmp_path / id), number=1, count=3, id=id)
        assert await handle.result(timeout=30) == [1_000, 1_001, 1_002]

    drawn = json.loads((await rotate(site, "--operator")).stdout)
    early = await rotate(site, "--operator", "--use")
    assert early.exit_code == 5
    assert "not restarted yet" in early.stderr
    assert KeyRing.load(keys).operator_signing_key == former
    await works("before")

    again = json.loads((await rotate(site, "--operator")).stdout)
    assert again == drawn, "a step that is repeated changes nothing"
    await restart(nats, tmp_path)
    (keys / OPERATOR_FILE).rename(tmp_path / "in-a-safe-place")
    used = await rotate(site, "--operator", "--use")
    assert used.exit_code == 0, used.output
    assert json.loads(used.stdout)["signing_key"] == drawn["signing_key"] != former
    assert json.loads(used.stdout)["accounts"] >= 3
    await works("between")

    await restart(nats, tmp_path)  # from here on the former key is nobody's
    await works("after")
    await issued(site, Kind.CLIENT, "new-tenant", tenant="another")
    assert (await rotate(site, "--operator", "--use")).exit_code == 0, "repeated, there is nothing to do"


async def test_the_operators_key_is_not_drawn_without_the_one_that_vouches_for_it(site: Settings, keys: Path) -> None:
    (keys / OPERATOR_FILE).rename(keys.parent / "safe.nk")
    refused = await rotate(site, "--operator")
    assert refused.exit_code == 2
    assert "--operator-key" in refused.stderr
    assert (await rotate(site, "--operator", "--operator-key", str(keys.parent / "safe.nk"))).exit_code == 0


def test_generations_follow_each_other_and_accounts_name_those_that_are_good(keys: Path) -> None:
    first = KeyRing.load(keys).tenant_signing_keys("d", "t")
    made = rotate_users(keys, after=0, old_for=3_600)
    ring = KeyRing.load(keys)
    second = ring.tenant_signing_keys("d", "t")
    assert second[1:] == first
    assert ring.tenant_signing_key("d", "t") == second[0]
    assert made.active_from <= time.time()
    rotate_users(keys, after=60, old_for=0)
    ring = KeyRing.load(keys)
    assert ring.tenant_signing_key("d", "t") == second[0], "the third is announced only"
    assert ring.tenant_signing_keys("d", "t")[1:] == second
    with pytest.raises(InvalidSetting, match="begins to sign in"):
        rotate_users(keys, after=0, old_for=0)
    assert (keys / FILE).stat().st_mode & 0o777 == 0o600
    assert KeyRing.load(keys).tenant_account("d", "t") == ring.tenant_account("d", "t"), "who is who stays"


def test_what_was_signed_ends_at_once_if_it_is_said_so(keys: Path) -> None:
    first = KeyRing.load(keys).tenant_signing_keys("d", "t")
    rotate_users(keys, after=0, old_for=0)
    assert not set(first) & set(KeyRing.load(keys).tenant_signing_keys("d", "t"))


def test_keys_are_read_again_when_their_file_is_another_and_a_bad_one_changes_nothing(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(keys)
    before = file.ring.tenant_signing_keys("d", "t")
    good = (keys / FILE).read_text()
    (keys / FILE).write_text("{")
    assert file.ring.tenant_signing_keys("d", "t") == before
    assert any(re.search("keys_not_read", record.getMessage()) for record in caplog.records)
    (keys / FILE).unlink()
    assert file.ring.tenant_signing_keys("d", "t") == before
    (keys / FILE).write_text(good)
    rotate_users(keys, after=0, old_for=3_600)
    assert file.ring.tenant_signing_keys("d", "t")[1:] == before
