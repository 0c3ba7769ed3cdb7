"""A platform with two tenants, and intruders: connections with the credential of a container or a worker."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from nats.aio.msg import Msg

from runtara.engine.service import Engine
from runtara.infra.bus import Bus, NotAcknowledged
from runtara.infra.credentials.files import Credential
from runtara.infra.login import CredentialLogin
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import NotAllowed
from runtara.sdk.credentials import obtain, operator
from tests.support.peer import Peer, connect_peer
from tests.support.platform import connect, deploy, running
from tests.support.polling import eventually
from tests.support.servers import SessionServers

TENANT = "acme"
VICTIM = "victim"
PARTITIONS = 2


@pytest.fixture
async def deployed(settings: Settings) -> Settings:
    settings = dataclasses.replace(settings, partitions=PARTITIONS)
    await deploy(settings)
    return settings


@pytest.fixture
async def engine(deployed: Settings) -> AsyncIterator[Engine]:
    async with running(deployed) as engine:
        yield engine


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def peer(deployed: Settings, engine: Engine) -> AsyncIterator[Peer]:
    """Of the attacked tenant, with `wf` registered."""
    async with connect_peer(deployed, tenant=VICTIM) as peer:
        await peer.register("wf")
        yield peer


def of(settings: Settings, tenant: str) -> Settings:
    return dataclasses.replace(settings, tenant=tenant)


async def issued(
    settings: Settings, kind: Kind, user: str, *, tenant: str = TENANT, instance: str | None = None, life: float = 60
) -> Credential:
    """By way of the API, as the local operator has it issued."""
    local = of(settings, tenant)
    asker = operator(local)
    assert asker is not None
    return await obtain(local, asker, kind=kind, user=user, instance=instance, expires_in=life)


class Intruder:
    """A connection with somebody's credential, and whether the server let it do what it tried."""

    def __init__(self, bus: Bus, credential: Credential) -> None:
        self.bus = bus
        self.credential = credential

    async def is_refused_publish(self, subject: str, payload: bytes = b"[]", *, reply: str = "") -> bool:
        """Whether the server refuses, at once, and says so."""
        if reply:
            await self.bus.publish(subject, payload, reply=reply)
            await self.bus.flush()
            return self.bus._was_refused(subject)
        try:
            await self.bus._ask(subject, payload, 0.5)
        except NotAllowed:
            return True
        except NotAcknowledged:
            return False
        return False

    async def is_refused_subscription(self, subject: str) -> bool:
        await self.bus.subscribe(subject, lambda msg: None)
        await self.bus.flush()
        await asyncio.sleep(0)
        return self.bus._was_refused(subject)


async def intrude(settings: Settings, credential: Credential, stack: AsyncExitStack) -> Intruder:
    assert credential.holder is not None
    bus = await Bus.connect(
        settings.require_nats_url(),
        name="intruder",
        inbox=credential.holder.inbox,
        login=CredentialLogin(credential),
    )
    return Intruder(await stack.enter_async_context(bus), credential)


class Witness:
    """Everything that is published in one account from now on."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    def on_message(self, msg: Msg) -> None:
        self.seen.append((msg.subject, msg.data))

    def subjects(self) -> set[str]:
        return {subject for subject, _ in self.seen}


@pytest.fixture
async def platform_witness(deployed: Settings, stack: AsyncExitStack) -> Witness:
    """Of the platform's account."""
    witness = Witness()
    bus = await stack.enter_async_context(await connect(deployed, tenant="witness", user="platform"))
    for subject in (f"{deployed.deployment}.>", "_INBOX.>", "$JS.API.>"):
        await bus.subscribe(subject, witness.on_message)
    await bus.flush()
    return witness


async def was_counted(servers: SessionServers, public_key: str, *, at_least: int = 1) -> None:
    """Until the operator can see it: the embedded server's log was read, and the attempts of this user counted."""

    def counted() -> bool:
        return servers.violations.counts[public_key] >= at_least

    await eventually(counted, what=f"{at_least} violations of {public_key}")
