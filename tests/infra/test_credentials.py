"""Keys, JWTs and the files that hold them; and that the server takes them for what they say."""

import base64
import dataclasses
from pathlib import Path

import msgspec
import nats
import nkeys
import pytest
from nats.aio.client import Client

from runtara.infra.credentials.files import Credential, load, parse
from runtara.infra.credentials.jwt import AccountBody, BadJwt, OperatorBody, UserBody, read, verified
from runtara.infra.credentials.keyring import FILE, OPERATOR_FILE, KeyRing
from runtara.infra.credentials.keys import Key, Role, has_signed, is_public
from runtara.infra.credentials.kinds import MAY_ISSUE, PLATFORM_KINDS, Holder, holder_of, may_issue
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidId, InvalidSetting
from tests.support.platform import connect, deploy


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.load_or_create(tmp_path)


def holder(kind: Kind = Kind.CONTAINER, **fields: object) -> Holder:
    tenant = "" if kind in PLATFORM_KINDS else "acme"
    known: dict[str, object] = {"tenant": tenant, "user": "box", "deployment": "runtara"}
    if kind is Kind.CONTAINER:
        known |= {"instance": "i-1", "partition": 3}
    return msgspec.convert({"kind": kind, **known, **fields}, Holder)


@pytest.mark.parametrize(("role", "letter"), [(Role.OPERATOR, "O"), (Role.ACCOUNT, "A"), (Role.USER, "U")])
def test_a_key_is_what_nkeys_makes_of_its_seed(role: Role, letter: str) -> None:
    key = Key.new(role)
    assert key.public.startswith(letter)
    assert key.public == bytes(nkeys.from_seed(bytearray(key.seed.encode())).public_key).decode()
    assert Key.read(key.seed, what="x").public == key.public
    assert is_public(key.public, role)
    assert not is_public(key.public, Role.USER if role is not Role.USER else Role.ACCOUNT)
    assert key.seed not in repr(key)


@pytest.mark.parametrize("text", ["", "U", "nonsense!", "U" * 56, "A" * 57])
def test_what_is_no_public_key_is_not_taken_for_one(text: str) -> None:
    assert not is_public(text, Role.USER)
    assert not has_signed(text, Role.USER, b"x", b"y")


def test_derived_keys_are_the_same_again_and_names_do_not_run_together() -> None:
    secret = b"s" * 32
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c")]
    keys = {Key.derived(Role.ACCOUNT, secret, *names).public for names in parts}
    assert len(keys) == len(parts)
    assert Key.derived(Role.ACCOUNT, secret, "a", "bc").public in keys
    assert Key.derived(Role.ACCOUNT, b"t" * 32, "a", "bc").public not in keys


def test_a_jwt_has_the_three_parts_and_the_claims_that_the_server_reads(ring: KeyRing) -> None:
    key = Key.new(Role.USER)
    jwt = ring.user_jwt(holder(), key.public, life=60)
    header, payload, signature = (base64.urlsafe_b64decode(part + "==") for part in jwt.split("."))
    assert msgspec.json.decode(header) == {"typ": "JWT", "alg": "ed25519-nkey"}
    claims = msgspec.json.decode(payload)
    assert claims["sub"] == key.public
    assert claims["iss"] == ring.tenant_signing_key("runtara", "acme")
    assert claims["exp"] - claims["iat"] == 60
    assert len(claims["jti"]) == 52
    assert claims["nats"]["type"] == "user"
    assert claims["nats"]["version"] == 2
    assert claims["nats"]["issuer_account"] == ring.tenant_account("runtara", "acme")
    assert "runtara.reports.3.acme.i.i-1" in claims["nats"]["pub"]["allow"]
    text = jwt.rpartition(".")[0].encode()
    assert has_signed(claims["iss"], Role.ACCOUNT, text, signature)


@pytest.mark.parametrize("change", ["payload", "signature", "header", "issuer"])
def test_a_jwt_that_was_changed_is_not_believed(ring: KeyRing, change: str) -> None:
    jwt = ring.user_jwt(holder(), Key.new(Role.USER).public, life=60)
    issuers = ring.issuers(holder())
    assert holder_of(verified(jwt, issuers, Role.ACCOUNT).nats) == holder()
    header, payload, signature = jwt.split(".")
    if change == "payload":
        claims = base64.urlsafe_b64decode(payload + "==").replace(b"acme", b"emca")
        jwt = f"{header}.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{signature}"
    elif change == "signature":
        jwt = f"{header}.{payload}.{'A' * len(signature)}"
    elif change == "header":
        jwt = f"{base64.urlsafe_b64encode(b'{}').decode()}.{payload}.{signature}"
    else:
        issuers = [Key.new(Role.ACCOUNT).public]
    with pytest.raises(BadJwt):
        verified(jwt, issuers, Role.ACCOUNT)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.!!.c", "..", "a.e30.c"])
def test_what_is_no_jwt_says_so(text: str) -> None:
    with pytest.raises(BadJwt):
        read(text)


def test_the_keys_are_drawn_once_and_their_files_are_their_owners(tmp_path: Path) -> None:
    ring = KeyRing.load_or_create(tmp_path)
    again = KeyRing.load_or_create(tmp_path)
    assert again.tenant_account("d", "t") == ring.tenant_account("d", "t")
    assert again.operator_jwt == ring.operator_jwt
    for name in (FILE, OPERATOR_FILE):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidSetting, match="already"):
        KeyRing.create(tmp_path)
    (tmp_path / OPERATOR_FILE).unlink()  # taken offline
    assert KeyRing.load(tmp_path).system_account == ring.system_account


def test_the_operators_own_key_signs_nothing_but_its_own_jwt(ring: KeyRing, tmp_path: Path) -> None:
    operator = Key.read((tmp_path / OPERATOR_FILE).read_text(), what="x")
    body = verified(ring.operator_jwt, [operator.public], Role.OPERATOR).nats
    assert isinstance(body, OperatorBody)
    assert body.strict_signing_key_usage
    assert body.signing_keys != [operator.public]
    for jwt in (ring.system_jwt(), ring.platform_jwt("d"), ring.tenant_jwt("d", "t", consumers=[], revocations={})):
        verified(jwt, body.signing_keys, Role.OPERATOR)


def test_a_tenants_account_imports_its_own_subjects_and_consumers_and_nothing_of_others(ring: KeyRing) -> None:
    body = read(ring.tenant_jwt("d", "acme", consumers=["run-a"], revocations={"UX": 7})).nats
    assert isinstance(body, AccountBody)
    assert (body.limits.disk_storage, body.limits.mem_storage, body.exports) == (0, 0, [])
    assert {(i.type, i.subject) for i in body.imports} == {
        ("service", "d.commands.*.acme.*"),
        ("service", "d.reports.*.acme.*.*"),
        ("service", "d.runner.*.acme.*"),
        ("service", "d.heartbeat.acme.*"),
        ("service", "d.api.acme.>"),
        ("service", "$JS.API.CONSUMER.MSG.NEXT.D-RUN.run-a"),
        ("service", "$JS.ACK.D-RUN.run-a.>"),
        ("stream", "d.control.acme.*"),
        ("stream", "d.done.acme.*"),
        ("stream", "d.committed.*"),
        ("stream", "_INBOX.acme.>"),
    }
    assert {i.account for i in body.imports} == {ring.platform_account("d")}
    assert body.revocations == {"UX": 7}


@pytest.mark.parametrize("kind", list(Kind))
def test_nobody_may_publish_everything_or_hear_more_than_its_own_inbox(ring: KeyRing, kind: Kind) -> None:
    body = read(ring.user_jwt(holder(kind), Key.new(Role.USER).public, life=60)).nats
    assert isinstance(body, UserBody)
    assert ">" not in body.pub.allow
    assert body.pub.allow, "an empty list would be every right"
    inboxes = [subject for subject in body.sub.allow if subject.startswith(("_INBOX", "_PLATFORM"))]
    assert inboxes == [f"_PLATFORM.{kind}.box.>" if kind in PLATFORM_KINDS else "_INBOX.acme.box.>"]
    if kind is Kind.CONTAINER:
        assert body.pub.allow == [
            "runtara.reports.3.acme.i.i-1",
            "runtara.heartbeat.acme.box",
            "runtara.api.acme.i-1.>",
            "runtara.api.acme.info",
        ]
        assert body.sub.allow == ["_INBOX.acme.box.>", "runtara.control.acme.box"]


def test_a_worker_for_some_consumers_takes_from_them_alone_and_registers_nothing(ring: KeyRing) -> None:
    launched = msgspec.structs.replace(holder(Kind.WORKER), consumers=("run-a",))
    body = read(ring.user_jwt(launched, Key.new(Role.USER).public, life=60)).nats
    assert isinstance(body, UserBody)
    pulls = [subject for subject in body.pub.allow if subject.startswith("$JS.")]
    assert pulls == ["$JS.API.CONSUMER.MSG.NEXT.RUNTARA-RUN.run-a", "$JS.ACK.RUNTARA-RUN.run-a.>"]
    assert "runtara.api.acme.register" not in body.pub.allow
    assert may_issue(launched) == frozenset()
    assert may_issue(holder(Kind.WORKER)) == {Kind.CLIENT}


def test_a_tenant_named_like_a_part_of_the_platform_is_a_tenant_like_others(ring: KeyRing) -> None:
    """Nobody of the platform hears answers below `_INBOX`, which tenants import."""
    for kind in PLATFORM_KINDS:
        body = read(ring.tenant_jwt("d", kind.value, consumers=[], revocations={})).nats
        assert isinstance(body, AccountBody)
        assert not any(i.subject.startswith("_PLATFORM") for i in body.imports)
        with pytest.raises(InvalidId):
            ring.user_jwt(holder(kind, tenant="acme"), Key.new(Role.USER).public, life=60)
    with pytest.raises(InvalidId):
        ring.user_jwt(holder(Kind.CLIENT, tenant=""), Key.new(Role.USER).public, life=60)


def test_no_kind_of_a_tenant_may_have_a_platforms_kind_issued() -> None:
    assert not any(kinds & PLATFORM_KINDS for kinds in MAY_ISSUE.values())
    assert MAY_ISSUE.keys() & {Kind.READER, Kind.CONTAINER} == set()


def test_a_credentials_file_is_read_again_and_by_nats_py_too(ring: KeyRing, tmp_path: Path) -> None:
    key = Key.new(Role.USER)
    credential = Credential.of(ring.user_jwt(holder(), key.public, life=60), key)
    file = tmp_path / "x.creds"
    credential.write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    for found in (load(str(file)), load(credential.text), parse(credential.text.replace("\n", "\r\n"))):
        assert (found.jwt, found.public_key, found.holder) == (credential.jwt, key.public, holder())
    assert key.seed not in repr(credential)
    client = Client()
    client._user_credentials = str(file)
    client._setup_nkeys_jwt_connect()
    assert client._user_jwt_cb is not None
    assert bytes(client._user_jwt_cb()).decode() == credential.jwt


@pytest.mark.parametrize("text", ["", "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------", "-----BEGIN"])
def test_a_file_that_holds_no_credential_names_the_setting(text: str, tmp_path: Path) -> None:
    file = tmp_path / "x.creds"
    file.write_text(text)
    with pytest.raises(InvalidSetting, match="nats_credentials"):
        load(str(file))
    with pytest.raises(InvalidSetting, match="cannot be read"):
        load(str(tmp_path / "missing"))


def test_a_jwt_about_another_key_is_no_credential(ring: KeyRing) -> None:
    jwt = ring.user_jwt(holder(), Key.new(Role.USER).public, life=60)
    with pytest.raises(InvalidSetting, match="another key"):
        Credential.of(jwt, Key.new(Role.USER))


async def test_the_server_lets_a_platforms_own_kinds_in_by_their_file_alone(settings: Settings, tmp_path: Path) -> None:
    """With nats-py as anybody uses it."""
    await deploy(settings)
    ring = KeyRing.load(Path(settings.nats_keys or ""))
    file = tmp_path / "engine.creds"
    ring.mint(Kind.ENGINE, settings.deployment, "e1").write(file)
    client = await nats.connect(
        settings.require_nats_url(),
        user_credentials=str(file),
        inbox_prefix=b"_PLATFORM.engine.e1",
        allow_reconnect=False,
    )
    info = await client.jetstream().stream_info(f"{settings.deployment.upper()}-JOURNAL-0")
    assert info.config.name
    await client.close()


async def test_a_deployment_has_no_part_in_another_one_on_the_same_server(settings: Settings) -> None:
    await deploy(settings)
    async with await connect(dataclasses.replace(settings, deployment=f"{settings.deployment}x")) as bus:
        assert msgspec.json.decode(await bus.jetstream("STREAM.NAMES"))["streams"] is None
