"""The life of a credential: issued to whom it may be, renewed while work goes on, expired, revoked, visibly."""

import asyncio
import base64
import dataclasses
import logging
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from runtara.compose.embedded import EmbeddedServers
from runtara.engine.service import Engine
from runtara.infra import bus as bus_module
from runtara.infra.bus import Bus, LoginRefused
from runtara.infra.credentials import kinds
from runtara.infra.credentials.files import Credential, load
from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.credentials.keys import Key, Role
from runtara.infra.login import CredentialLogin
from runtara.infra.settings import Settings
from runtara.protocol.credentials import CredentialRequest, CredentialView, Issue, Issued, Kind, ListIssued, Revoke
from runtara.protocol.errors import CredentialRefused, NotAllowed, RuntaraError
from runtara.protocol.subjects import Subjects
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from runtara.sdk.connection import Connection
from runtara.sdk.credentials import _until_half_life, ask, obtain, operator
from runtara.sdk.discovery import load as load_code
from runtara.sdk.instance import Instance
from runtara.sdk.worker import Worker
from tests.faults import faulty
from tests.support.peer import Peer, connect_peer
from tests.support.platform import deploy, running
from tests.support.polling import eventually

from .conftest import TENANT, VICTIM, intrude, issued, of

pytestmark = pytest.mark.timeout(90)
LIFE = 8  # seconds; a worker process on a busy machine has to be up within half of it
STEPS = 1_200  # of 10 ms
FLOWS = str(Path(faulty.__file__ or ""))


async def refusals(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """Until an engine has told the operator."""

    def told() -> bool:
        return any("login_ended_by_server" in r.getMessage() and reason in r.getMessage() for r in caplog.records)

    await eventually(told, what=f"a line of a login that ended with {reason}")


async def connected(settings: Settings, credential: Credential) -> Bus:
    assert credential.holder is not None
    return await Bus.connect(
        settings.require_nats_url(), name="t", inbox=credential.holder.inbox, login=CredentialLogin(credential)
    )  # fmt: skip


async def test_an_expired_credential_ends_its_connection_and_gets_no_other(
    deployed: Settings, engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "CONNECT_TIMEOUT_SECONDS", 80)  # a refusal is not waited for
    caplog.set_level(logging.WARNING)
    credential = await issued(deployed, Kind.CONTAINER, "box", instance="mine", life=3)
    ended: list[RuntaraError] = []
    async with await connected(deployed, credential) as bus:
        bus.on_refused.append(ended.append)
        await eventually(lambda: ended)
        assert isinstance(ended[0], LoginRefused)
    await refusals(caplog, "Authentication Expired")
    await eventually(lambda: time.time() > credential.expires_at + 1)  # the server counts whole seconds
    with pytest.raises(LoginRefused):
        await connected(deployed, credential)
    await refusals(caplog, "Authentication Failure")


async def test_a_revoked_credential_ends_its_connection_at_once_and_gets_no_other(
    deployed: Settings, engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "CONNECT_TIMEOUT_SECONDS", 80)  # a refusal is not waited for
    caplog.set_level(logging.WARNING)
    local = operator(of(deployed, TENANT))
    assert local is not None
    credential = await issued(deployed, Kind.CLIENT, "c-1")
    other = await issued(deployed, Kind.CLIENT, "c-2")
    ended: list[RuntaraError] = []
    async with await connected(deployed, credential) as bus, await connected(deployed, other) as bystander:
        bus.on_refused.append(ended.append)
        assert await ask(of(deployed, TENANT), local, Revoke(user="c-1"), list[str]) == [credential.public_key]
        await eventually(lambda: ended)
        assert await bystander.call(Subjects(deployed.deployment).api(TENANT, "info"), {}, dict)
    await refusals(caplog, "Credentials Revoked")
    with pytest.raises(LoginRefused):
        await connected(deployed, credential)
    assert await ask(of(deployed, TENANT), local, Revoke(user="c-1"), list[str]) == []
    views = await ask(of(deployed, TENANT), local, ListIssued(all=True), list[CredentialView])
    assert {view.user: view.revoked_at is not None for view in views} == {"c-1": True, "c-2": False}


@pytest.mark.slow
async def test_a_worker_goes_on_working_while_its_credential_is_renewed(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several lives of a credential within one attempt."""
    monkeypatch.setitem(kinds.LIFE_SECONDS, Kind.WORKER, LIFE)
    pool = await stack.enter_async_context(Pool(deployed, [FLOWS]))
    client = await stack.enter_async_context(Client(deployed))
    peer = await stack.enter_async_context(connect_peer(deployed))
    (worker,) = pool.workers
    begun = time.time()
    handle = await client.start(faulty.steps, folder=str(tmp_path), number=1, count=STEPS, id="long")
    assert len(await handle.result(timeout=80)) == STEPS
    assert time.time() - begun > LIFE
    assert set(pool.workers) == {worker}
    expires = await peer.pool.fetchval("SELECT expires_at FROM credentials WHERE user_id = $1", worker)
    assert expires / 1e6 > begun + LIFE + LIFE / 4
    row = await peer.row("long", "default")
    assert row is not None
    assert (row["attempt"], row["restarts"]) == (1, 0)
    assert len(faulty.trace(str(tmp_path))) == STEPS


async def test_a_renewed_credential_is_written_back_to_its_file(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, tmp_path: Path
) -> None:
    file = tmp_path / "client.creds"
    (await issued(deployed, Kind.CLIENT, "c-1", life=2)).write(file)
    first = load(str(file))
    site = dataclasses.replace(of(deployed, TENANT), nats_credentials=str(file), nats_keys=None)
    client = await stack.enter_async_context(Client(site))
    await eventually(lambda: load(str(file)).expires_at > first.expires_at + 2, within=20)
    assert (await client.list()).instances == []
    assert file.stat().st_mode & 0o777 == 0o600


async def test_what_cannot_be_renewed_ends_its_process_with_the_reason(
    deployed: Settings, engine: Engine, stack: AsyncExitStack
) -> None:
    credential = await issued(deployed, Kind.WORKER, "w-1", life=2)
    site = dataclasses.replace(of(deployed, TENANT), nats_credentials=credential.text, nats_keys=None)
    async with Worker(site, load_code([FLOWS])) as worker:
        assert worker.id == "w-1"
        local = operator(of(deployed, TENANT))
        assert local is not None
        await ask(of(deployed, TENANT), local, Revoke(public_key=credential.public_key), list[str])
        with pytest.raises(LoginRefused, match="expired, been revoked"):
            async with asyncio.timeout(20):
                await worker.failed()


async def test_a_containers_credential_is_revoked_when_its_claim_ends(
    deployed: Settings, engine: Engine, peer: Peer, stack: AsyncExitStack
) -> None:
    settings = of(deployed, VICTIM)
    runner = await stack.enter_async_context(
        await Connection.open(settings, kind=Kind.RUNNER, user="r-1", name="runner", patience=5)
    )
    credential = await runner.issue(kind=Kind.CONTAINER, user="box", instance="i-1")
    assert credential is not None
    box = await intrude(settings, credential, stack)
    ended: list[RuntaraError] = []
    box.bus.on_refused.append(ended.append)
    await peer.start("i-1")
    subject = Subjects(deployed.deployment).instance_reports(peer.partition("i-1"), VICTIM, "i-1")
    claim = {"instance": "i-1", "attempt": 1, "nonce": "0" * 32}
    started = {"type": "started", "worker": "box", **claim}
    completed = {"type": "completed", "seq": 1, "result": None, **claim}
    await box.bus.publish_acked(subject, msgspec.json.encode([started]))
    await peer.until_type("i-1", "AttemptStarted")
    assert ended == []
    await box.bus.publish_acked(subject, msgspec.json.encode([completed]))
    await peer.until_status("i-1", "completed")
    await eventually(lambda: ended)
    assert await peer.pool.fetchval("SELECT revoked_at FROM credentials WHERE user_id = 'box'") is not None


async def test_a_new_tenant_needs_no_restart_and_two_tenants_do_not_see_each_other(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, tmp_path: Path
) -> None:
    settings = {tenant: of(deployed, tenant) for tenant in ("one", "two")}
    for site in settings.values():
        await stack.enter_async_context(Pool(site, [FLOWS]))
    clients = {name: await stack.enter_async_context(Client(site)) for name, site in settings.items()}
    for number, (name, client) in enumerate(clients.items()):
        folder = tmp_path / name
        folder.mkdir()
        handle = await client.start(faulty.steps, folder=str(folder), number=number, count=3, id="same-id")
        assert await handle.result(timeout=20) == [number * 1_000 + n for n in range(3)]
    for number, client in enumerate(clients.values()):
        (view,) = (await client.list()).instances
        assert view.id == "same-id"
        assert await client.handle("same-id").result() == [number * 1_000 + n for n in range(3)]
    spy = await intrude(deployed, await issued(deployed, Kind.CLIENT, "spy", tenant="one"), stack)
    d = deployed.deployment
    assert await spy.is_refused_publish(f"{d}.api.two.list", b"{}")
    assert await spy.is_refused_publish(f"{d}.commands.0.two.spy")
    assert await spy.is_refused_subscription(f"{d}.done.two.*")
    assert await spy.is_refused_subscription("_INBOX.two.>")


async def test_a_read_only_client_reads_and_changes_nothing(
    deployed: Settings, engine: Engine, stack: AsyncExitStack
) -> None:
    credential = await issued(deployed, Kind.READER, "viewer")
    site = dataclasses.replace(of(deployed, TENANT), nats_credentials=credential.text, nats_keys=None)
    client = await stack.enter_async_context(Client(site))
    assert (await client.list()).instances == []
    with pytest.raises(NotAllowed):
        await client.start("wf", {})
    assert (await intrude(deployed, credential, stack)).bus.is_connected
    spy = await intrude(deployed, credential, stack)
    for verb in ("register", "forget"):
        assert await spy.is_refused_publish(f"{deployed.deployment}.api.acme.{verb}", b"{}")


@pytest.mark.parametrize(
    ("asker", "wanted", "words"),
    [
        (Kind.CONTAINER, Kind.WORKER, "a container may not have a worker"),
        (Kind.CONTAINER, Kind.CONTAINER, "a container may not have a container"),
        (Kind.READER, Kind.CLIENT, "a reader may not have a client"),
        (Kind.WORKER, Kind.RUNNER, "a worker may not have a runner"),
        (Kind.WORKER, Kind.CONTAINER, "a worker may not have a container"),
        (Kind.CLIENT, Kind.WORKER, "a client may not have a worker"),
        (Kind.RUNNER, Kind.CLIENT, "a runner may not have a client"),
        (Kind.RUNNER, Kind.ENGINE, "a runner may not have a engine"),
        (Kind.OPERATOR, Kind.SYSTEM, "a operator may not have a system"),
    ],
)
async def test_nobody_has_more_issued_than_its_own_kind_may(
    deployed: Settings, engine: Engine, asker: Kind, wanted: Kind, words: str
) -> None:
    settings = of(deployed, TENANT)
    if asker is Kind.OPERATOR:
        local = operator(settings)
        assert local is not None
        credential = local
    else:
        instance = "mine" if asker is Kind.CONTAINER else None
        credential = await issued(deployed, asker, "asker", instance=instance)
    other = "other" if wanted is Kind.CONTAINER else None
    with pytest.raises(CredentialRefused, match=words):
        await obtain(settings, credential, kind=wanted, user="u", instance=other)
    if asker is not Kind.OPERATOR:
        with pytest.raises(CredentialRefused, match="may not list or revoke"):
            await ask(settings, credential, ListIssued(), list[CredentialView])
    if asker not in (Kind.OPERATOR, Kind.RUNNER):
        with pytest.raises(CredentialRefused, match="may not list or revoke"):
            await ask(settings, credential, Revoke(user="asker"), list[str])


async def test_a_runner_revokes_what_it_had_issued_and_nothing_else(deployed: Settings, engine: Engine) -> None:
    settings = of(deployed, TENANT)
    runner, other = await issued(deployed, Kind.RUNNER, "r-1"), await issued(deployed, Kind.RUNNER, "r-2")
    mine = await obtain(settings, runner, kind=Kind.WORKER, user="w-1")
    theirs = await obtain(settings, other, kind=Kind.WORKER, user="w-2")
    for user in ("w-2", "r-1", "r-2"):
        assert await ask(settings, runner, Revoke(user=user), list[str]) == []
    assert await ask(settings, runner, Revoke(public_key=theirs.public_key), list[str]) == []
    assert await ask(settings, runner, Revoke(user="w-1"), list[str]) == [mine.public_key]
    with pytest.raises(LoginRefused):
        await connected(deployed, mine)
    async with await connected(deployed, theirs) as bus:
        assert bus.is_connected


async def test_nobody_is_issued_the_id_of_a_user_that_there_is(deployed: Settings, engine: Engine) -> None:
    """Else a client could hear, as a container of that id, what is said to a worker."""
    settings = of(deployed, TENANT)
    await issued(deployed, Kind.WORKER, "w-1")
    client = await issued(deployed, Kind.CLIENT, "c-1")
    with pytest.raises(CredentialRefused, match="w-1 is a user already"):
        await obtain(settings, client, kind=Kind.CONTAINER, user="w-1", instance="mine")
    long = await obtain(settings, client, kind=Kind.CONTAINER, user="s-1", instance="mine", expires_in=10**9)
    assert long.expires_at - long.issued_at <= 7 * 24 * 3600


async def test_an_order_is_worth_nothing_without_the_key_of_the_credential_that_comes_with_it(
    deployed: Settings, engine: Engine
) -> None:
    """A JWT is no secret; and one that somebody else has signed is nothing at all."""
    settings = of(deployed, TENANT)
    runner, client = await issued(deployed, Kind.RUNNER, "r-1"), await issued(deployed, Kind.CLIENT, "c-1")
    stranger = KeyRing.load(_foreign_keys(Path(settings.nats_keys or "")))
    forged = stranger.mint(Kind.OPERATOR, deployed.deployment, "local")
    order = msgspec.json.encode(Issue(kind=Kind.WORKER, user="w-1", public_key=Key.new(Role.USER).public))
    async with await connected(settings, client) as bus:
        for jwt, key, words in (
            (runner.jwt, client.key, "not signed by the key"),
            (forged.jwt, forged.key, "signed by somebody else"),
            (f"{runner.jwt[:-4]}AAAA", runner.key, "signature is wrong"),
            ("nonsense", client.key, "no JWT"),
        ):
            signature = base64.b64encode(key.sign(order)).decode()
            request = CredentialRequest(jwt=jwt, order=order.decode(), signature=signature)
            with pytest.raises(CredentialRefused, match=words):
                await bus.call(Subjects(deployed.deployment).api(TENANT, "credential"), request, Issued)


def _foreign_keys(near: Path) -> Path:
    folder = near.parent.parent / "foreign"
    folder.mkdir(exist_ok=True)
    KeyRing.load_or_create(folder)
    return folder


async def test_accounts_outlive_a_server_and_a_lost_folder_of_accounts_is_made_again(
    stack: AsyncExitStack, deployment: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o711)
    data = tmp_path / "data"
    servers = await stack.enter_async_context(EmbeddedServers(data))
    site = Settings(
        deployment=deployment, nats_url=servers.nats_url, nats_keys=str(servers.nats_keys),
        database_url=servers.database_url, journal_max_bytes=64 * 1024 * 1024, tenant=TENANT,
    )  # fmt: skip
    await deploy(site)
    await stack.enter_async_context(running(site))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    for number in range(2):
        await servers.nats.stop()
        if number:
            shutil.rmtree(data / "nats" / "accounts")
        await servers.nats.start()
        folder = tmp_path / str(number)
        folder.mkdir()
        handle = await client.start(faulty.steps, folder=str(folder), number=number, count=3, id=f"i-{number}")
        assert await handle.result(timeout=30) == [number * 1_000 + n for n in range(3)]


async def test_a_worker_has_a_credential_of_its_own_and_nothing_that_could_get_it_more(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTARA_NATS_KEYS", deployed.nats_keys or "")
    pool = await stack.enter_async_context(Pool(deployed, [FLOWS], processes=2))
    environs = [Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0") for child in pool.children]
    users = set()
    for environ, child in zip(environs, pool.children, strict=True):
        given = dict(line.decode().partition("=")[::2] for line in environ if line.startswith(b"RUNTARA_"))
        assert "RUNTARA_NATS_KEYS" not in given
        holder = load(given["RUNTARA_NATS_CREDENTIALS"]).holder
        assert holder is not None
        assert (holder.kind, holder.user) == (Kind.WORKER, child.worker)
        users.add(holder.user)
        assert b"SEED" not in Path(f"/proc/{child.pid}/cmdline").read_bytes()
    assert len(users) == 2


async def test_a_credential_of_another_tenant_says_how_to_get_the_right_one(
    deployed: Settings, engine: Engine
) -> None:  # fmt: skip
    credential = await issued(deployed, Kind.CLIENT, "c-1")
    site = dataclasses.replace(of(deployed, "other"), nats_credentials=credential.text, nats_keys=None)
    with pytest.raises(CredentialRefused, match="runtara credential create --tenant other"):
        async with Client(site):
            pass


@pytest.mark.parametrize("shift", [-7_200, 0, 7_200])
def test_a_process_whose_clock_is_wrong_renews_neither_too_late_nor_all_the_time(
    shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing.load_or_create(tmp_path)
    key = Key.new(Role.USER)
    holder = kinds.Holder(kind=Kind.CLIENT, tenant="t", user="u", deployment="d")
    credential = Credential.of(ring.user_jwt(holder, key.public, life=3_600), key)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + shift)
    assert 60 <= _until_half_life(credential) <= 1_800


LOOKS = """
from runtara.sdk import Client, Context, workflow


async def names() -> list[str]:
    async with Client() as client:
        return [view.id for view in (await client.list()).instances]


@workflow
async def looks(ctx: Context) -> list[str]:
    return await ctx.step("names", names)
"""


async def test_code_in_a_worker_may_be_a_client_of_its_tenant(
    deployed: Settings, engine: Engine, stack: AsyncExitStack, tmp_path: Path
) -> None:
    (tmp_path / "looking.py").write_text(LOOKS)
    site = of(deployed, TENANT)
    await stack.enter_async_context(Pool(site, [str(tmp_path / "looking.py")]))
    client = await stack.enter_async_context(Client(site))
    handle = await client.start("looks", {}, id="self")
    assert await handle.result(timeout=20) == ["self"]


async def test_a_script_with_a_clients_credential_speaks_for_an_instance(deployed: Settings, engine: Engine) -> None:
    credential = await issued(deployed, Kind.CLIENT, "c-1")
    site = dataclasses.replace(of(deployed, TENANT), nats_credentials=credential.text, nats_keys=None)
    async with Instance.local("batch-1", workflow="batch", settings=site) as instance:
        await instance.register({"count": 1})
        assert not (await instance.checkpoint("one", {"n": 1})).existing
        await instance.completed({"count": 1})
    async with Client(site) as client:
        assert await client.handle("batch-1").result(timeout=10) == {"count": 1}


async def test_a_container_given_its_credential_speaks_under_its_users_id(
    deployed: Settings, engine: Engine, peer: Peer
) -> None:
    settings = of(deployed, VICTIM)
    credential = await issued(deployed, Kind.CONTAINER, "box-7", tenant=VICTIM, instance="batch-1")
    site = dataclasses.replace(settings, nats_credentials=credential.text, nats_keys=None)
    async with Instance.local("batch-1", workflow="batch", settings=site) as instance:
        await instance.register({})
        assert (await peer.get("batch-1")).worker == "box-7"
        await instance.completed(None)
    with pytest.raises(CredentialRefused):
        async with Instance.local("batch-2", workflow="batch", settings=site) as other:
            await other.register({})


async def test_a_revocation_that_the_server_could_not_be_told_is_told_by_the_next_engine(
    deployed: Settings, peer: Peer
) -> None:
    """As after an engine that died between its row and its word."""
    credential = await issued(deployed, Kind.CLIENT, "c-1")
    ended: list[RuntaraError] = []
    async with await connected(deployed, credential) as bus:
        bus.on_refused.append(ended.append)
        now = time.time_ns() // 1_000
        await peer.pool.execute("UPDATE credentials SET revoked_at = $1 WHERE user_id = 'c-1'", now)
        async with running(deployed):
            await eventually(lambda: ended)
