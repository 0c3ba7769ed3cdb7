"""Connections: sealed in the table, handed to the worker that runs a workflow which names them, and to nobody else."""

import asyncio
import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from nats.aio.msg import Msg

from runtara.engine.connections import seal_again
from runtara.infra.sealing import FILE, SealingKeys
from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.configuration import ConnectionView, OpenConnection, SetConnection
from runtara.protocol.errors import (
    BadInput,
    ConnectionNotAllowed,
    ConnectionNotFound,
    InstanceNotFound,
    InvalidConnection,
    InvalidId,
    InvalidSetting,
    Malformed,
    RuntaraError,
    SealingKeyMissing,
)
from runtara.protocol.ids import new_nonce
from runtara.protocol.messages import Claimed, OpenedConnection
from runtara.protocol.records import Cancel, Image, Options, Registered, Start, Started
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running

SECRET = "tr0ub4dor-and-3"
FIELDS = {"token": SECRET, "base_url": "https://crm.example"}
ONE, TWO = "1" * 64, "2" * 64


async def put(
    peer: Peer, name: str = "crm", fields: object = FIELDS, *, type: str = "http_bearer", actor: str | None = None
) -> ConnectionView:
    request = SetConnection(name=name, type=type, fields=Raw(msgspec.json.encode(fields)), actor=actor)
    return await peer.api("set_connection", request, ConnectionView)


async def views(peer: Peer) -> list[ConnectionView]:
    return await peer.api("connections", {}, list[ConnectionView])


async def register(peer: Peer, workflow: str = "sync", *connections: str) -> None:
    options = Options(connections=connections)
    request = RegisterRequest(worker="w1", workflows=[Registration(workflow=workflow, options=options)])
    await peer.api("register", request, RegisterReply)


async def opened(peer: Peer, instance: str, name: str = "crm", *, listener: str = "w1") -> OpenedConnection:
    """Ask as the code of `instance` does; what comes to the inbox of `listener`."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    inbox = f"_INBOX.{peer.tenant}.{listener}.connections.{new_nonce()}"

    async def on_message(msg: Msg) -> None:
        heard.put_nowait(msg.data)

    await peer.bus.subscribe(inbox, on_message)
    await peer.bus.flush()  # the answer comes over another connection
    assert await peer.api("connection", OpenConnection(name=name, reply=inbox), bool, instance)
    async with asyncio.timeout(10):
        return msgspec.json.decode(await heard.get(), type=OpenedConnection)


async def test_the_worker_of_an_instance_opens_what_its_workflow_names(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    await platform.claim("i-1")
    found = await opened(platform, "i-1")
    assert (found.name, found.type, msgspec.json.decode(found.fields)) == ("crm", "http_bearer", FIELDS)
    await platform.is_sound()


async def test_the_list_has_no_secrets_and_says_who_uses_what(platform: Peer) -> None:
    view = await put(platform, actor="ann")
    assert (view.name, view.type, view.used_by, view.set_by) == ("crm", "http_bearer", [], "ann")
    await put(platform, "files", {"password": SECRET}, type="sftp")
    await register(platform, "sync", "crm", "files")
    await platform.until_shown("sync", "wf")
    assert [(view.name, view.used_by) for view in await views(platform)] == [("crm", ["sync"]), ("files", ["sync"])]
    for verb in ("connections", "workflows"):
        reply = await platform.bus.nats.request(platform.subjects.api("default", verb), b"{}", timeout=10)
        assert SECRET not in reply.data.decode()


async def test_nothing_of_it_is_plain_in_the_database(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    await platform.claim("i-1")
    await opened(platform, "i-1")
    for table in await platform.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"):
        for row in await platform.pool.fetch(f'SELECT t::text FROM "{table["tablename"]}" t'):
            assert SECRET not in row[0]
            assert SECRET.encode().hex() not in row[0], "bytea is shown as hex"
    sealed = await platform.pool.fetchval("SELECT sealed FROM connections")
    await put(platform)
    assert await platform.pool.fetchval("SELECT sealed FROM connections") != sealed, "sealed anew each time"


async def test_what_is_set_again_or_deleted_counts_at_once(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    await platform.claim("i-1")
    await put(platform, fields={"api_key": "k"}, type="http_api_key")
    found = await opened(platform, "i-1")
    assert (found.type, bytes(found.fields)) == ("http_api_key", b'{"api_key":"k"}')
    assert await platform.api("forget_connection", "crm", bool)
    with pytest.raises(ConnectionNotFound, match="no connection 'crm' in tenant 'default'; `runtara connections set"):
        await opened(platform, "i-1")
    with pytest.raises(ConnectionNotFound):
        await platform.api("forget_connection", "crm", bool)


async def test_a_connection_that_is_not_named_is_not_answered(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "other")
    await platform.start("i-1", "sync")
    await platform.claim("i-1")
    with pytest.raises(ConnectionNotAllowed, match=r"workflow sync is not registered for it.*connections=\('crm',\)"):
        await opened(platform, "i-1")


async def test_code_that_was_replaced_and_code_that_is_new_open_what_each_names(platform: Peer) -> None:
    """Instances of a pool go on in new code; a container goes on in the image that it was started with."""
    await put(platform)
    await put(platform, "files")
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    await platform.claim("i-1")
    await register(platform, "sync", "files")
    await platform.start("i-2", "sync")  # answered behind it
    await platform.claim("i-2")
    assert {(await opened(platform, "i-1", name)).name for name in ("crm", "files")} == {"crm", "files"}
    with pytest.raises(ConnectionNotAllowed):
        await opened(platform, "i-2", "crm")


async def test_whoever_starts_an_instance_cannot_choose_what_it_opens(platform: Peer) -> None:
    await put(platform)
    await platform.ask(Start(instance="i-1", id="s-1", workflow="wf", options=Options(connections=("crm",))))
    await platform.claim("i-1")
    with pytest.raises(ConnectionNotAllowed):
        await opened(platform, "i-1")


async def test_the_answer_goes_to_the_worker_that_holds_the_instance_alone(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    with pytest.raises(ConnectionNotAllowed, match=r"nobody runs it now \(it is queued\)"):
        await opened(platform, "i-1")
    held = await platform.claim("i-1")
    for listener in ("w2", "test", "w1.x", "w", "*"):
        reply = f"_INBOX.default.{listener}" if listener != "w1.x" else "_INBOX.default.w1"
        with pytest.raises(ConnectionNotAllowed, match="another worker"):
            await platform.api("connection", OpenConnection(name="crm", reply=f"{reply}.a b"), bool, "i-1")
        if listener != "w1.x":
            with pytest.raises(ConnectionNotAllowed, match="another worker"):
                await platform.api(
                    "connection", OpenConnection(name="crm", reply=f"{reply}.connections.x"), bool, "i-1"
                )
    await held.complete()
    with pytest.raises(ConnectionNotAllowed, match="it is completed"):
        await opened(platform, "i-1")
    with pytest.raises(InstanceNotFound):
        await opened(platform, "nobody")


async def test_a_script_opens_none_whatever_workflow_it_says_it_is(platform: Peer) -> None:
    await put(platform)
    await register(platform, "sync", "crm")
    inbox = platform.inbox()
    record = Registered(
        instance="i-1", workflow="sync", worker="w1", nonce=new_nonce(), reply=inbox.subject,
        options=Options(connections=("crm",)),
    )  # fmt: skip
    await platform.raw(platform.subjects.instance_reports(0, "default", "i-1"), msgspec.json.encode([record]))
    await inbox.next(Claimed)
    with pytest.raises(ConnectionNotAllowed, match="script"):
        await opened(platform, "i-1")


async def test_a_claim_that_no_runner_launched_opens_none(platform: Peer) -> None:
    """A client may have a credential issued that speaks for one instance; that is not the workflow's code."""
    await put(platform)
    await register(platform, "sync", "crm")
    await platform.start("i-1", "sync")
    inbox = platform.inbox()
    record = Started(instance="i-1", attempt=1, nonce=new_nonce(), worker="w1", reply=inbox.subject)
    await platform.raw(platform.subjects.instance_reports(0, "default", "i-1"), msgspec.json.encode([record]))
    await inbox.next(Claimed)
    with pytest.raises(ConnectionNotAllowed, match="script"):
        await opened(platform, "i-1")


async def test_what_a_runner_launched_opens_what_its_image_was_registered_with(platform: Peer) -> None:
    await put(platform)
    image = Image(name="box", version=1, reference="sha256:" + "0" * 64)
    boxed = Registration(workflow="boxed", options=Options(connections=("crm",)))
    await platform.api("register_image", {"image": image, "workflows": [boxed]}, Raw)
    await platform.start("i-1", "boxed")
    runner, box = platform.subjects.runner(0, "default", "r1"), platform.subjects.instance_reports(0, "default", "i-1")
    for subject, worker, by in ((runner, "r1", "runner"), (box, "w1", "worker")):
        if worker == "w1":
            with pytest.raises(ConnectionNotAllowed, match="nobody runs it"):
                await opened(platform, "i-1", listener="r1")
        inbox = platform.inbox()
        record = Started(
            instance="i-1", attempt=1, nonce=new_nonce(), worker=worker, by=by, token="t-1",  # type: ignore[arg-type]
            reply=inbox.subject,
        )  # fmt: skip
        await platform.raw(subject, msgspec.json.encode([record]))
        await inbox.next(Claimed)
    assert (await opened(platform, "i-1")).name == "crm"


async def test_tenants_have_connections_of_their_own(platform: Peer, deployed: Settings) -> None:
    await put(platform)
    async with connect_peer(deployed, tenant="other") as other:
        assert await views(other) == []
        await register(other, "sync", "crm")
        await other.start("i-1", "sync")
        await other.claim("i-1")
        with pytest.raises(ConnectionNotFound, match="tenant 'other'"):
            await opened(other, "i-1")
        await put(other, fields={"token": "theirs"})
        assert bytes((await opened(other, "i-1")).fields) == b'{"token":"theirs"}'
        with pytest.raises(ConnectionNotFound):
            await other.api("forget_connection", "files", bool)
        await other.api("forget_connection", "crm", bool)
    assert [view.name for view in await views(platform)] == ["crm"]


async def test_a_row_that_is_moved_to_another_tenant_or_name_does_not_open(platform: Peer, deployed: Settings) -> None:
    """Whoever can write the database, and has no key, makes nobody a present of a secret."""
    await put(platform)
    async with connect_peer(deployed, tenant="other") as other:
        await register(other, "sync", "crm")
        await other.start("i-1", "sync")
        await other.claim("i-1")
        await platform.pool.execute("UPDATE connections SET tenant = 'other'")
        with pytest.raises(SealingKeyMissing, match="was changed in the database"):
            await opened(other, "i-1")
        await platform.pool.execute("UPDATE connections SET tenant = 'default'")


BAD: list[tuple[dict[str, Any], type[RuntaraError], str]] = [
    ({"name": "a.b"}, InvalidId, "legal connection"),
    ({"type": ""}, InvalidId, "type of a connection"),
    ({"type": "http bearer"}, InvalidId, "type of a connection"),
    ({"fields": {}}, InvalidConnection, "0 fields"),
    ({"fields": [SECRET]}, InvalidConnection, "must be a JSON object"),
    ({"fields": SECRET}, InvalidConnection, "must be a JSON object"),
    ({"fields": {"a b": SECRET}}, InvalidConnection, "a field's name"),
    ({"fields": {f"f{n}": SECRET for n in range(65)}}, InvalidConnection, "65 fields"),
    ({"fields": {"key": SECRET * 5_000}}, InvalidConnection, "the limit is 65,536"),
    ({"actor": "a.b"}, InvalidId, "legal actor"),
]


@pytest.mark.parametrize(("fields", "error", "reason"), BAD, ids=[reason for _, _, reason in BAD])
async def test_what_cannot_be_kept_is_refused_without_a_word_of_it(
    platform: Peer, fields: dict[str, Any], error: type[RuntaraError], reason: str
) -> None:
    with pytest.raises(error, match=reason) as caught:
        await put(platform, **fields)
    assert SECRET not in repr(caught.value.to_wire())
    assert await views(platform) == []


@pytest.mark.parametrize("question", [b"[", b'{"name":"a","type":5,"fields":{"a":"%s"}}' % SECRET.encode(), b'{"x":1}'])
@pytest.mark.parametrize("verb", ["set_connection", "forget_connection"])
async def test_a_bad_question_gets_a_clear_answer(platform: Peer, verb: str, question: bytes) -> None:
    reply = await platform.bus.nats.request(platform.subjects.api("default", verb), question, timeout=10)
    assert msgspec.json.decode(reply.data)["error"]["code"] == "Malformed"
    assert SECRET.encode() not in reply.data


async def test_a_registration_names_only_what_can_be_one(platform: Peer) -> None:
    with pytest.raises(InvalidId, match="connection"):
        await register(platform, "sync", "a.b")
    with pytest.raises(BadInput, match="names 33"):
        await register(platform, "sync", *(f"c{n}" for n in range(33)))
    image = Image(name="box", version=1, reference="box:1")
    boxed = Registration(workflow="boxed", options=Options(connections=("a.b",)))
    with pytest.raises(InvalidId):
        await platform.api("register_image", {"image": image, "workflows": [boxed]}, Raw)
    with pytest.raises(Malformed):
        await platform.api("connection", {"name": "crm"}, bool, "i-1")


# keys


def with_key(settings: Settings, keys: str | None) -> Settings:
    return dataclasses.replace(settings, connections_key=keys)


@pytest.fixture
async def setting(peer: Peer, deployed: Settings) -> Peer:
    """A peer of a deployment where `crm` was set by an engine with the key ONE; no engine runs any more."""
    async with running(with_key(deployed, ONE)):
        await put(peer)
        await register(peer, "sync", "crm")
        await peer.start("i-1", "sync")
        await peer.claim("i-1")
    return peer


async def test_an_engine_with_another_key_says_so_and_seals_nothing(setting: Peer, deployed: Settings) -> None:
    async with running(with_key(deployed, TWO)):
        with pytest.raises(SealingKeyMissing, match=r"connection crm is sealed with the key [0-9a-f]{16}, which the"):
            await opened(setting, "i-1")
        with pytest.raises(SealingKeyMissing, match="and the keys here are"):
            await put(setting, "files")
        assert [view.name for view in await views(setting)] == ["crm"]
    async with running(with_key(deployed, ONE)):
        assert msgspec.json.decode((await opened(setting, "i-1")).fields) == FIELDS


async def test_a_new_key_seals_while_the_older_one_still_opens(setting: Peer, deployed: Settings) -> None:
    async with running(with_key(deployed, f"{TWO} {ONE}")):
        assert msgspec.json.decode((await opened(setting, "i-1")).fields) == FIELDS
        await put(setting, fields={"token": "new"})
    async with running(with_key(deployed, TWO)):
        assert bytes((await opened(setting, "i-1")).fields) == b'{"token":"new"}'


async def test_all_is_sealed_again_with_the_first_key_or_nothing(setting: Peer, deployed: Settings) -> None:
    keys = SealingKeys.of(with_key(deployed, f"{TWO}\n{ONE}"))
    with pytest.raises(SealingKeyMissing):
        await seal_again(setting.pool, SealingKeys.of(with_key(deployed, TWO)))
    id, count = await seal_again(setting.pool, keys)
    assert (id, count) == (keys.read()[0].id, 1)
    assert await seal_again(setting.pool, keys) == (id, 0)
    async with running(with_key(deployed, TWO)):
        assert msgspec.json.decode((await opened(setting, "i-1")).fields) == FIELDS


@pytest.mark.parametrize("text", ["secret", "1" * 63, "g" * 64, f"{ONE} x"])
async def test_a_key_that_is_none_is_said_without_showing_it(peer: Peer, deployed: Settings, text: str) -> None:
    async with running(with_key(deployed, text)):
        with pytest.raises(InvalidSetting, match="64 hex digits") as caught:
            await put(peer)
    assert text not in str(caught.value)


async def test_the_first_connection_draws_the_key_where_there_is_none_and_no_other_engine_draws_another(
    peer: Peer, deployed: Settings, tmp_path: Path
) -> None:
    assert deployed.nats_keys is not None
    ring = Path(deployed.nats_keys)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "keys.json").write_bytes(((ring / "keys.json") if ring.is_dir() else ring).read_bytes())
    async with running(dataclasses.replace(deployed, nats_keys=str(folders[0]))):
        assert not (folders[0] / FILE).exists()
        await put(peer)
        assert len((folders[0] / FILE).read_text().split()) == 1
    async with running(dataclasses.replace(deployed, nats_keys=str(folders[1] / "keys.json"))):
        with pytest.raises(SealingKeyMissing, match="and there is no key here"):
            await put(peer, "files")
        assert not (folders[1] / FILE).exists()


def test_a_key_file_is_private_and_drawn_once(tmp_path: Path) -> None:
    keys = SealingKeys(text=None, file=tmp_path / FILE)
    assert keys.read() == []
    first = keys.draw()
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert keys.draw().id == first.id
    second = keys.draw(another=True)
    assert [key.id for key in keys.read()] == [second.id, first.id]
    sealed = first.seal(b"{}", ("a", "b"))
    assert first.open(sealed, ("a", "b")) == b"{}"
    assert [first.open(sealed, ("ab", "")), first.open(sealed[:-1], ("a", "b")), second.open(sealed, ("a", "b"))] == [
        None, None, None,
    ]  # fmt: skip
    assert (tmp_path / FILE).read_text().split()[0] not in repr(second)
    with pytest.raises(InvalidSetting):
        SealingKeys(text=ONE, file=tmp_path / FILE).draw()


async def test_secrets_are_in_no_log_line_not_even_at_debug(
    platform: Peer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("DEBUG"):
        await put(platform)
        await register(platform, "sync", "crm")
        await platform.start("i-1", "sync")
        await platform.claim("i-1")
        await opened(platform, "i-1")
        await platform.pool.execute("UPDATE connections SET sealed = sealed || '\\x00'::bytea")
        with pytest.raises(SealingKeyMissing):
            await opened(platform, "i-1")
        await platform.ask(Cancel(instance="i-1", id="c-1"))
    output = capsys.readouterr()
    for text in (caplog.text, output.out, output.err, json.dumps([str(r.__dict__) for r in caplog.records])):
        assert SECRET not in text
