"""Connections, asked for with each kind of credential: only the worker that runs the instance hears a secret."""

from contextlib import AsyncExitStack

import msgspec
import pytest
from msgspec import Raw
from nats.aio.msg import Msg

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.configuration import ConnectionView, OpenConnection, SetConnection
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import ConnectionNotAllowed, RuntaraError
from runtara.protocol.messages import OpenedConnection
from runtara.protocol.records import Options
from runtara.protocol.subjects import Subjects
from tests.support.peer import Peer
from tests.support.polling import eventually

from .conftest import TENANT, VICTIM, Intruder, intrude, issued

SECRET = "tr0ub4dor-and-3"
CRM = SetConnection(name="crm", type="http_bearer", fields=Raw(msgspec.json.encode({"token": SECRET})))


@pytest.fixture
async def running_one(peer: Peer) -> Peer:
    """In tenant `victim` worker w1 runs `i-1`, whose workflow names `crm`."""
    await peer.api("set_connection", CRM, ConnectionView)
    sync = Registration(workflow="sync", options=Options(connections=("crm",)))
    await peer.api("register", RegisterRequest(worker="w1", workflows=[sync]), RegisterReply)
    await peer.start("i-1", "sync")
    await peer.claim("i-1")
    return peer


async def of_kind(
    settings: Settings,
    stack: AsyncExitStack,
    kind: Kind,
    user: str,
    *,
    tenant: str = VICTIM,
    instance: str | None = None,
) -> tuple[Intruder, list[Msg]]:
    """Somebody with such a credential, and what comes to its inbox."""
    intruder = await intrude(settings, await issued(settings, kind, user, tenant=tenant, instance=instance), stack)
    heard: list[Msg] = []
    await intruder.bus.subscribe(f"_INBOX.{tenant}.{user}.connections.*", heard.append)
    await intruder.bus.flush()
    return intruder, heard


async def ask(intruder: Intruder, settings: Settings, reply: str, *, tenant: str = VICTIM) -> None:
    subject = Subjects(settings.deployment).api(tenant, "connection", "i-1")
    await intruder.bus.call(subject, OpenConnection(name="crm", reply=reply), bool)


async def test_the_worker_that_runs_it_hears_the_secret(
    running_one: Peer, deployed: Settings, stack: AsyncExitStack
) -> None:
    worker, heard = await of_kind(deployed, stack, Kind.WORKER, "w1")
    await ask(worker, deployed, "_INBOX.victim.w1.connections.x")
    await eventually(lambda: heard)
    assert bytes(msgspec.json.decode(heard[0].data, type=OpenedConnection).fields) == bytes(CRM.fields)


@pytest.mark.parametrize("kind", [Kind.CLIENT, Kind.RUNNER, Kind.WORKER, Kind.CONTAINER])
async def test_anybody_else_of_the_tenant_hears_nothing_whatever_inbox_it_names(
    running_one: Peer, deployed: Settings, stack: AsyncExitStack, kind: Kind
) -> None:
    """A container's credential for this very instance, which a client may have issued, included."""
    instance = "i-1" if kind is Kind.CONTAINER else None
    other, heard = await of_kind(deployed, stack, kind, "other", instance=instance)
    with pytest.raises(ConnectionNotAllowed):
        await ask(other, deployed, "_INBOX.victim.other.connections.x")
    await ask(other, deployed, "_INBOX.victim.w1.connections.x")  # it goes to the one that has it anyway
    assert await other.is_refused_subscription("_INBOX.victim.w1.connections.x")
    with pytest.raises(ConnectionNotAllowed):
        await ask(other, deployed, "_INBOX.victim.other.connections.y")
    assert heard == []


async def test_a_container_reaches_its_own_instances_and_sets_and_lists_none(
    running_one: Peer, deployed: Settings, stack: AsyncExitStack
) -> None:
    box, _ = await of_kind(deployed, stack, Kind.CONTAINER, "box", instance="mine")
    names = Subjects(deployed.deployment)
    assert not await box.is_refused_publish(names.api(VICTIM, "connection", "mine"))
    assert await box.is_refused_publish(names.api(VICTIM, "connection", "i-1"))
    for verb in ("connections", "set_connection", "forget_connection"):
        assert await box.is_refused_publish(names.api(VICTIM, verb))


async def test_who_may_set_and_who_may_list(running_one: Peer, deployed: Settings, stack: AsyncExitStack) -> None:
    names = Subjects(deployed.deployment)
    client, _ = await of_kind(deployed, stack, Kind.CLIENT, "c1")
    (view,) = await client.bus.call(names.api(VICTIM, "connections"), {}, list[ConnectionView])
    assert (view.name, view.used_by) == ("crm", ["sync"])
    reader, _ = await of_kind(deployed, stack, Kind.READER, "r1")
    assert not await reader.is_refused_publish(names.api(VICTIM, "connections"), b"{}")
    worker, _ = await of_kind(deployed, stack, Kind.WORKER, "w9")
    for intruder in (reader, worker):
        for verb in ("set_connection", "forget_connection"):
            assert await intruder.is_refused_publish(names.api(VICTIM, verb))
    assert await reader.is_refused_publish(names.api(VICTIM, "connection", "i-1"))


async def test_another_tenant_reaches_nothing(
    running_one: Peer, engine: Engine, deployed: Settings, stack: AsyncExitStack
) -> None:
    """Neither as its own (there it is another instance), nor as the other's (no right, no import)."""
    worker, heard = await of_kind(deployed, stack, Kind.WORKER, "w1", tenant=TENANT)
    assert await worker.is_refused_publish(Subjects(deployed.deployment).api(VICTIM, "connection", "i-1"))
    with pytest.raises(RuntaraError, match="no instance 'i-1' in tenant 'acme'"):
        await ask(worker, deployed, "_INBOX.victim.w1.connections.x", tenant=TENANT)
    assert heard == []
