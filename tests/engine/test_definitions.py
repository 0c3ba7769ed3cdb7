"""The registry of definitions: versions, which one a start takes, and where its run requests wait."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from runtara.infra.settings import Settings
from runtara.protocol.api import ConsumersRequest, RegisterReply, RegisterRequest, Registration
from runtara.protocol.configuration import (
    DefinitionReply,
    DefinitionRequest,
    DefinitionsRequest,
    DefinitionView,
    HostDefinitions,
    RegisterDefinition,
    RegisteredDefinition,
)
from runtara.protocol.definitions import EVERY, KIND
from runtara.protocol.errors import (
    BadInput,
    DefinitionInUse,
    DefinitionNotFound,
    InvalidDefinition,
    InvalidId,
    Malformed,
    RuntaraError,
    from_wire,
)
from runtara.protocol.messages import CommandAnswer
from runtara.protocol.records import Cancel, ChildRequest, Options, Parked, Start
from runtara.sdk import Client, sync
from tests.engine.test_connections import opened, put
from tests.engine.test_images import options_of, run_request
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running

ONE, TWO = b'{"steps": {"a": {"stepType": "Finish"}}}', b'{"steps": {"b": {"stepType": "Finish"}}}'


async def register(
    peer: Peer, document: bytes = ONE, workflow: str = "flow", *, actor: str | None = None, **options: Any
) -> RegisteredDefinition:
    registration = Registration(workflow=workflow, options=Options(**options), description="flows")
    request = RegisterDefinition(registration=registration, document=Raw(document), actor=actor)
    return await peer.api("register_definition", request, RegisteredDefinition)


async def views(peer: Peer, workflow: str | None = None) -> list[DefinitionView]:
    return await peer.api("definitions", DefinitionsRequest(workflow=workflow), list[DefinitionView])


async def get(peer: Peer, workflow: str = "flow", version: int | None = None) -> DefinitionReply:
    return await peer.api("definition", DefinitionRequest(workflow=workflow, version=version), DefinitionReply)


async def forget(peer: Peer, workflow: str = "flow", version: int | None = None) -> list[int]:
    return await peer.api("forget_definition", DefinitionRequest(workflow=workflow, version=version), list[int])


async def start(peer: Peer, instance: str, *, version: int | None = None, workflow: str = "flow") -> CommandAnswer:
    return await peer.ask(Start(instance=instance, id=f"start-{instance}", workflow=workflow, version=version))


async def test_a_start_takes_the_last_version_into_the_log_and_the_run_request(platform: Peer) -> None:
    done = await register(platform, actor="ann", restarts=2)
    assert (done.created, done.view.version, done.view.is_current, done.view.registered_by) == (True, 1, True, "ann")
    assert (await start(platform, "i-1")).error is None
    expected = Options(runner=KIND, restarts=2, definition=1)
    assert await options_of(platform, "i-1") == expected
    subject = platform.subjects.run(KIND, "default", "flow", "i-1", 1)
    assert (await run_request(platform, subject)).options == expected
    assert (await platform.get("i-1")).definition == 1
    view = next(view for view in await platform.workflows() if view.id == "flow")
    assert (view.kind, view.code_version, view.description) == (KIND, done.view.hash, "flows")
    await platform.is_sound()


async def test_the_same_content_again_is_the_same_version_however_it_is_spaced(platform: Peer) -> None:
    first = await register(platform)
    again = await register(platform, b'{"steps":{"a":{"stepType":\n"Finish"}}}')
    assert (again.created, again.view.version, again.view.hash) == (False, 1, first.view.hash)
    assert (await register(platform, TWO)).view.version == 2
    assert (await register(platform, TWO, restarts=1)).view.version == 3  # another compiler reads other options in it
    assert (await register(platform, ONE)).view.version == 4
    await start(platform, "i-1")  # answered behind it
    assert [(view.version, view.is_current) for view in await views(platform, "flow")] == [
        (4, True), (3, False), (2, False), (1, False),
    ]  # fmt: skip
    assert bytes((await get(platform, version=2)).document) == TWO
    assert (await get(platform)).version == 4


async def test_instances_keep_their_version_and_an_earlier_one_can_be_asked_for(platform: Peer) -> None:
    await register(platform, timeout_us=1_000_000, restarts=2)
    await start(platform, "old")
    await register(platform, TWO, timeout_us=9_000_000, restarts=3)
    await start(platform, "new")
    await start(platform, "asked", version=1)
    assert [(await options_of(platform, id)).definition for id in ("old", "new", "asked")] == [1, 2, 1]
    assert await options_of(platform, "asked") == Options(runner=KIND, restarts=3, definition=1)  # its own time-out


@pytest.mark.parametrize(
    ("workflow", "version", "reason"),
    [
        ("flow", 3, "no registered definition flow@3; the last version is 2"),
        ("flow", 0, "no registered definition flow@0; the last version is 2"),
        ("flow", -1, "no registered definition flow@-1"),
        ("wf", 1, "no registered definition wf@1; it is code of a worker"),
    ],
)
async def test_a_version_that_there_is_not_starts_nothing(
    platform: Peer, workflow: str, version: int, reason: str
) -> None:
    await register(platform)
    await register(platform, TWO)
    answer = await start(platform, "i-1", version=version, workflow=workflow)
    assert answer.error is not None
    assert reason in str(from_wire(answer.error))
    assert await platform.row("i-1") is None


async def test_whoever_starts_an_instance_chooses_a_version_and_nothing_else(platform: Peer) -> None:
    await register(platform)
    forged = Options(runner="pool", definition=7, connections=("crm",))
    await platform.ask(Start(instance="i-1", id="s-1", workflow="flow", options=forged))
    await platform.ask(Start(instance="i-2", id="s-2", workflow="wf", options=forged))
    assert await options_of(platform, "i-1") == Options(runner=KIND, definition=1)
    assert await options_of(platform, "i-2") == Options()


async def test_a_child_is_started_in_the_last_version_or_in_one_that_is_named(platform: Peer) -> None:
    await register(platform)
    await register(platform, TWO)
    held = await platform.started("parent")
    for child, version in (("c-last", None), ("c-1", 1), ("c-7", 7)):
        asked = ChildRequest(workflow="flow", instance=child, version=version)
        await held.publish(held.record(Parked, key=child, kind="child", child=asked))
        await platform.until_type(child, "InstanceCreated")
    assert [(await options_of(platform, child)).definition for child in ("c-last", "c-1")] == [2, 1]
    await platform.until_status("c-7", "failed")
    row = await platform.row("c-7")
    assert row is not None
    assert b"flow@7" in row["error"]
    await platform.is_sound()


async def test_a_fork_goes_on_in_the_sources_version_or_in_the_last(platform: Peer) -> None:
    await register(platform)
    await start(platform, "i-1")
    await register(platform, TWO)
    assert (await platform.fork("i-1", "kept")).error is None
    assert (await platform.fork("i-1", "moved", latest=True)).error is None
    assert [(await options_of(platform, id)).definition for id in ("kept", "moved")] == [1, 2]
    await platform.register("flow")  # it is code now
    assert (await platform.fork("i-1", "code")).error is None
    assert await options_of(platform, "code") == Options()


async def test_a_later_registration_takes_its_place_whoever_makes_it(platform: Peer) -> None:
    await register(platform)
    await platform.register("flow")
    await start(platform, "i-1")
    assert await options_of(platform, "i-1") == Options()
    assert [view.is_current for view in await views(platform)] == [False]
    assert (await register(platform)).view.version == 1
    await start(platform, "i-2")
    assert (await options_of(platform, "i-2")).definition == 1


async def test_a_version_in_use_is_not_deleted_and_its_users_are_named(platform: Peer) -> None:
    await register(platform)
    await start(platform, "i-1")
    await register(platform, TWO)
    await start(platform, "i-2")
    with pytest.raises(DefinitionInUse, match=r"flow@1 is in use by instance i-1;"):
        await forget(platform, version=1)
    with pytest.raises(DefinitionInUse, match=r"flow@2 is in use by workflow flow, instance i-2;"):
        await forget(platform, version=2)
    with pytest.raises(DefinitionInUse, match=r"flow is in use by workflow flow, instance i-1, instance i-2;"):
        await forget(platform)
    await platform.ask(Cancel(instance="i-1", id="c-1"))
    assert await forget(platform, version=1) == [1]
    with pytest.raises(DefinitionNotFound, match=r"flow@1; the last versions are 2"):
        await get(platform, version=1)
    await platform.api("forget", "flow", bool)
    await platform.ask(Cancel(instance="i-2", id="c-2"))
    assert await forget(platform) == [2]
    with pytest.raises(DefinitionNotFound, match="`runtara dsl register FILE`"):
        await forget(platform)
    assert (await register(platform)).view.version == 3, "a number is not used again"


async def test_tenants_have_definitions_of_their_own(platform: Peer, deployed: Settings) -> None:
    await register(platform)
    async with connect_peer(deployed, tenant="other") as other:
        assert await views(other) == []
        with pytest.raises(DefinitionNotFound):
            await get(other)
        answer = await start(other, "i-1")
        assert answer.error is not None
        assert answer.error.code == "UnknownWorkflow"
        assert (await register(other, TWO)).view.version == 1


async def test_many_registering_at_once_get_versions_without_a_gap(platform: Peer, deployed: Settings) -> None:
    async with running(deployed):  # two engines answer
        documents = [b'{"n": %d}' % n for n in range(12)]
        done = await asyncio.gather(*(register(platform, document) for document in documents))
    assert sorted(one.view.version for one in done) == list(range(1, 13))


async def test_one_consumer_has_the_requests_of_all_definitions(platform: Peer) -> None:
    """Also of those that are registered later."""
    question = HostDefinitions(worker="w9", workflows=["own"])
    reply = await platform.api("host_definitions", question, RegisterReply)
    assert await platform.api("host_definitions", question, RegisterReply) == reply
    for name in ("flow", "other"):
        await register(platform, workflow=name)
        await start(platform, f"i-{name}", workflow=name)
    info = await platform.bus.jetstream(f"CONSUMER.INFO.{reply.stream}.{reply.consumers[EVERY]}", {})
    assert msgspec.json.decode(info)["num_pending"] == 2
    hosts = {view.id: view.workers for view in await platform.until_shown("flow", "other", "wf")}
    assert (hosts["flow"], hosts["other"], hosts["wf"]) == (["w9"], ["w9"], ["w1"])


async def test_no_worker_registers_a_definition_and_no_runner_takes_them(platform: Peer) -> None:
    for bad in (Registration(workflow="a", kind=KIND), Registration(workflow="a", options=Options(definition=1))):
        with pytest.raises(Malformed, match="registry"):
            await platform.api("register", RegisterRequest(worker="w1", workflows=[bad]), RegisterReply)
    with pytest.raises(Malformed, match="registered definitions"):
        await platform.api("consumers", ConsumersRequest(runner="r1", kind=KIND), RegisterReply)


async def test_each_version_opens_the_connections_that_it_names(platform: Peer) -> None:
    for name in ("crm", "files"):
        await put(platform, name)
    await register(platform, connections=("crm",))
    await register(platform, TWO, connections=("files",))
    await start(platform, "i-1", version=1)
    await platform.claim("i-1")
    assert (await opened(platform, "i-1", "crm")).name == "crm"


BAD: list[tuple[bytes, type[RuntaraError], str]] = [
    (b"[]", InvalidDefinition, "not a JSON object"),
    (b'{"a": ' + b"[" * 130 + b"]" * 130 + b"}", InvalidDefinition, "nested deeper"),
    (b'{"a": "%s"}' % (b"x" * 4_200_000), InvalidDefinition, "the limit is 4,194,304"),
]


@pytest.mark.parametrize(("document", "error", "reason"), BAD, ids=[reason for _, _, reason in BAD])
async def test_what_is_no_document_is_refused(
    platform: Peer, document: bytes, error: type[RuntaraError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        await register(platform, document)
    assert await views(platform) == []


async def test_names_are_checked(platform: Peer) -> None:
    with pytest.raises(InvalidId):
        await register(platform, workflow="a.b")
    with pytest.raises(InvalidId):
        await register(platform, connections=("a.b",))
    with pytest.raises(InvalidId):
        await register(platform, actor="a b")
    with pytest.raises(BadInput):
        await register(platform, connections=tuple(f"c{n}" for n in range(33)))


async def test_the_client_registers_lists_and_deletes(platform: Peer, deployed: Settings) -> None:
    async with Client(deployed, actor="ann") as client:
        done = await client.definitions.register(Registration(workflow="flow"), ONE)
        assert (done.view.version, done.view.registered_by) == (1, "ann")
        assert bytes((await client.definitions.get("flow")).document) == ONE
        handle = await client.start("flow", id="i-1", version=1)
        with pytest.raises(DefinitionNotFound):
            await client.start("flow", version=2)
        fork = await client.fork("i-1", latest=True)
        with pytest.raises(InvalidDefinition):
            await client.definitions.register(Registration(workflow="flow"), b"[]")
        await fork.cancel()
        await handle.cancel()
        await client.forget_workflow("flow")
        await platform.until_shown("wf")
        assert await client.definitions.delete("flow", version=1) == [1]

    def blocking() -> list[DefinitionView]:
        with sync.Client.connect(deployed) as client:
            return client.definitions.list("flow")

    assert await asyncio.to_thread(blocking) == []
