"""Break-out attempts with a container's and a worker's own credential: refused, without effect, and visible."""

import asyncio
import dataclasses
from contextlib import AsyncExitStack

import msgspec
import pytest
from nats.aio.msg import Msg

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.ids import partition_of
from runtara.protocol.messages import Control
from runtara.protocol.subjects import Subjects
from tests.support.peer import Peer, connect_peer
from tests.support.polling import eventually
from tests.support.servers import SessionServers

from .conftest import PARTITIONS, TENANT, VICTIM, Intruder, Witness, intrude, issued, was_counted

INSTANCE = "mine"
OWN = partition_of(TENANT, INSTANCE, PARTITIONS)
PUBLISHES = [
    f"D.reports.{OWN}.acme.i.other",
    f"D.reports.{1 - OWN}.acme.i.mine",
    f"D.reports.{OWN}.victim.i.mine",
    f"D.reports.{OWN}.acme.w.box",
    f"D.commands.{OWN}.acme.box",
    f"D.commands.{OWN}.victim.box",
    f"D.runner.{OWN}.acme.box",
    f"D.engine.{OWN}",
    "D.run.pool.victim.wf.i-1.1",
    "D.run.pool.acme.wf.mine.1",
    "D.control.acme.other",
    "D.control.victim.w1",
    "D.done.acme.mine",
    f"D.committed.{OWN}",
    "D.heartbeat.acme.other",
    "D.heartbeat.victim.w1",
    "_INBOX.acme.other.x",
    "_INBOX.acme.box.x",
    "_INBOX.victim.w1.x",
    "D.api.acme.list",
    "D.api.acme.register",
    "D.api.acme.credential",
    "D.api.acme.other.get",
    "D.api.acme.blob",
    "D.api.acme.blob_put",
    "D.api.acme.other.blob",
    "D.api.acme.other.blob_put",
    "D.api.victim.info",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.PURGE.S-RUN",
    "$JS.API.STREAM.DELETE.S-JOURNAL-0",
    "$JS.API.STREAM.MSG.GET.S-JOURNAL-0",
    "$JS.API.CONSUMER.CREATE.S-JOURNAL-0",
    "$JS.API.CONSUMER.MSG.NEXT.S-RUN.run-x",
    "$JS.ACK.S-RUN.run-x.1.1.1.1.0",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.SERVER.PING.CONNZ",
]
SUBSCRIPTIONS = [
    ">",
    "D.>",
    "D.control.acme.*",
    "D.control.acme.other",
    "D.control.victim.w1",
    "D.reports.>",
    f"D.reports.{OWN}.acme.i.mine",
    "D.commands.*.acme.*",
    "D.run.>",
    "D.done.acme.*",
    "D.committed.*",
    "_INBOX.>",
    "_INBOX.acme.>",
    "_INBOX.acme.other.>",
    "_INBOX.victim.>",
    "$JS.>",
    "$SYS.>",
]


def named(subject: str, settings: Settings) -> str:
    """`D` is the deployment, `S-` what its streams begin with."""
    tokens = [settings.deployment if token == "D" else token for token in subject.split(".")]
    return ".".join(tokens).replace("S-", f"{settings.deployment.upper()}-")


@pytest.fixture
async def box(deployed: Settings, engine: Engine, stack: AsyncExitStack) -> Intruder:
    """A container that may speak for instance `mine` of tenant `acme`."""
    return await intrude(deployed, await issued(deployed, Kind.CONTAINER, "box", instance=INSTANCE), stack)


@pytest.fixture
async def worker(deployed: Settings, engine: Engine, stack: AsyncExitStack) -> Intruder:
    return await intrude(deployed, await issued(deployed, Kind.WORKER, "box"), stack)


async def test_what_a_container_may_do_it_can(box: Intruder, deployed: Settings) -> None:
    subjects = Subjects(deployed.deployment)
    assert not await box.is_refused_publish(subjects.instance_reports(OWN, TENANT, INSTANCE))
    assert not await box.is_refused_publish(subjects.heartbeat(TENANT, "box"), reply="_INBOX.acme.box.x")
    assert not await box.is_refused_publish(subjects.api(TENANT, "get", INSTANCE))
    assert not await box.is_refused_publish(subjects.api(TENANT, "info"))
    assert not await box.is_refused_subscription(subjects.control(TENANT, "box"))
    assert not await box.is_refused_subscription("_INBOX.acme.box.anything")


async def test_a_container_publishes_nothing_else_and_each_attempt_is_counted(
    box: Intruder, deployed: Settings, platform_witness: Witness, peer: Peer, servers: SessionServers
) -> None:
    platform_witness.seen.clear()
    tried = [named(subject, deployed) for subject in PUBLISHES]
    refused = [subject for subject in tried if await box.is_refused_publish(subject)]
    assert refused == tried
    assert platform_witness.subjects() & set(tried) <= {named(f"D.committed.{OWN}", deployed)}  # the engine's own
    assert await peer.rejected() == []
    await was_counted(servers, box.credential.public_key, at_least=len(tried))


async def test_a_container_hears_nobody_else(
    box: Intruder, deployed: Settings, servers: SessionServers
) -> None:  # fmt: skip
    tried = [named(subject, deployed) for subject in SUBSCRIPTIONS]
    assert [subject for subject in tried if await box.is_refused_subscription(subject)] == tried
    await was_counted(servers, box.credential.public_key, at_least=len(tried))


@pytest.mark.parametrize(
    "subject",
    [
        f"D.reports.{OWN}.acme.w.other",
        f"D.reports.{OWN}.acme.i.mine",
        f"D.reports.{OWN}.victim.w.box",
        f"D.commands.{OWN}.acme.box",
        f"D.runner.{OWN}.acme.box",
        f"D.engine.{OWN}",
        "D.run.pool.acme.wf.i.1",
        "D.control.acme.box",
        "D.heartbeat.acme.other",
        "D.heartbeat.victim.box",
        "D.api.victim.info",
        "D.api.acme.list",
        "D.api.acme.forget",
        "_INBOX.victim.w1.x",
        "$JS.API.STREAM.PURGE.S-RUN",
        "$JS.API.CONSUMER.DELETE.S-RUN.run-x",
    ],
)
async def test_a_worker_publishes_only_what_a_worker_says(worker: Intruder, deployed: Settings, subject: str) -> None:
    assert await worker.is_refused_publish(named(subject, deployed))


@pytest.mark.parametrize("subject", [">", "D.control.acme.*", "D.reports.>", "_INBOX.acme.>", "D.done.acme.*"])
async def test_a_worker_hears_only_what_is_said_to_it(worker: Intruder, deployed: Settings, subject: str) -> None:
    assert await worker.is_refused_subscription(named(subject, deployed))


async def test_an_acknowledgement_never_leaves_the_tenant_whatever_reply_is_named(
    box: Intruder, deployed: Settings, peer: Peer, platform_witness: Witness, stack: AsyncExitStack
) -> None:
    """x8: within one account the server wrote it over another tenant's run request."""
    await peer.start("i-1")
    await eventually(peer.waiting_runs)
    waiting = await peer.waiting_runs()
    victim = await intrude(deployed, await issued(deployed, Kind.WORKER, "w1", tenant=VICTIM), stack)
    heard: list[Msg] = []
    for subject in ("_INBOX.victim.w1.>", named("D.control.victim.w1", deployed)):
        await victim.bus.subscribe(subject, heard.append)
    await victim.bus.flush()
    platform_witness.seen.clear()

    own = Subjects(deployed.deployment).instance_reports(OWN, TENANT, INSTANCE)
    replies = [named(subject, deployed) for subject in PUBLISHES if subject != f"D.committed.{OWN}"]
    for reply in [*replies, waiting[0], "_INBOX.victim.w1.x", "_PLATFORM.engine.x.y"]:
        assert not await box.is_refused_publish(own, b"[]", reply=reply)
    await peer.folded(await peer.raw(own, b"[]"), OWN)

    assert platform_witness.subjects() & {*replies, waiting[0], "_INBOX.victim.w1.x", "_PLATFORM.engine.x.y"} == set()
    assert heard == []
    assert await peer.waiting_runs() == waiting
    assert await peer.status("i-1") == "queued"


async def test_an_acknowledgement_at_a_neighbours_control_subject_is_no_control_message(
    box: Intruder, deployed: Settings, stack: AsyncExitStack
) -> None:
    """Within its tenant a reply can be named, and what comes there is nothing that a worker reads."""
    neighbour = await intrude(deployed, await issued(deployed, Kind.WORKER, "w1"), stack)
    heard: list[bytes] = []
    control = Subjects(deployed.deployment).control(TENANT, "w1")
    await neighbour.bus.subscribe(control, lambda msg: heard.append(msg.data))
    await neighbour.bus.flush()
    own = Subjects(deployed.deployment).instance_reports(OWN, TENANT, INSTANCE)
    assert not await box.is_refused_publish(own, b"[]", reply=control)
    await eventually(lambda: heard)
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(heard[0], type=Control)


async def test_a_worker_pulls_its_own_tenants_requests_and_never_anothers(
    worker: Intruder, deployed: Settings, peer: Peer, platform_witness: Witness
) -> None:
    stream = Subjects(deployed.deployment).run_stream
    consumer = next(iter((await peer.register("wf")).consumers.values()))
    await peer.start("i-1")
    await eventually(peer.waiting_runs)
    heard: list[Msg] = []
    await worker.bus.subscribe("_INBOX.acme.box.pull.*", heard.append)
    pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
    question = msgspec.json.encode({"batch": 1, "expires": 500_000_000})
    await worker.bus.publish(pull, question, reply="_INBOX.acme.box.pull.1")
    await worker.bus.publish(f"$JS.ACK.{stream}.{consumer}.1.1.1.1.0", b"+TERM")
    await eventually(lambda: heard)
    assert [msg.headers["Status"][:3] for msg in heard if msg.headers] == ["503"]  # nobody there answers it
    assert pull not in platform_witness.subjects()
    assert await peer.waiting_runs() == [named("D.run.pool.victim.wf.i-1.1", deployed)]

    theirs = dataclasses.replace(deployed, tenant=TENANT)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        friend = await stack.enter_async_context(connect_peer(theirs, tenant=TENANT))
        own = next(iter((await friend.register("wf")).consumers.values()))
        await friend.start("i-2")
        heard.clear()
        while not [msg for msg in heard if not msg.headers]:
            await worker.bus.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{own}", question, reply="_INBOX.acme.box.pull.2"
            )
            await asyncio.sleep(0.1)
        request = next(msg for msg in heard if not msg.headers)
        assert request.subject == named("D.run.pool.acme.wf.i-2.1", deployed)
        await worker.bus.publish(request.reply, b"+ACK")
        await eventually(lambda: _gone(friend, request.subject))


async def _gone(peer: Peer, subject: str) -> bool:
    return subject not in await peer.waiting_runs()
