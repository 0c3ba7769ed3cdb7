"""Deployments and engines in the test's own process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtara.engine.accounts import connect_platform
from runtara.engine.service import Engine
from runtara.engine.setup import create_deployment
from runtara.infra.bus import Bus
from runtara.infra.credentials.files import Credential
from runtara.infra.credentials.jwt import UNLIMITED, UserBody, signed
from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.credentials.keys import Key, Role
from runtara.infra.credentials.kinds import Holder
from runtara.infra.login import CredentialLogin, Login, given_login, tls_of
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind


async def connect(settings: Settings, *, url: str | None = None, tenant: str = "default", user: str = "test") -> Bus:
    """A connection that may do everything in the platform's account, or in the only one."""
    return await Bus.connect(
        url or settings.require_nats_url(),
        name=user,
        inbox=f"_INBOX.{tenant}.{user}",
        login=await boundless(settings),
        tls=tls_of(settings),
    )


async def boundless(settings: Settings) -> Login | None:
    """A user of the platform's account with every right; the account is there from now on."""
    if settings.nats_keys is None:
        return given_login(settings)
    async with await connect_platform(settings, name="test"):
        pass
    ring, deployment = KeyRing.load(Path(settings.nats_keys)), settings.deployment
    account, name = ring._home_of(Holder(kind=Kind.ENGINE, tenant="", user="test", deployment=deployment))
    signing = ring._signing_key(*name)
    key = Key.new(Role.USER)
    body = UserBody(issuer_account=account, subs=UNLIMITED, data=UNLIMITED, payload=UNLIMITED)
    jwt = signed(signing, subject=key.public, name="test", body=body, issued_at=int(time.time()))
    return CredentialLogin(Credential.of(jwt, key))


async def deploy(settings: Settings) -> str:
    """What `runtara migrate` does; the identity of the deployment."""
    async with await connect_platform(settings, name="test") as bus:
        return await create_deployment(settings, bus)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Engine]:
    """An engine; if it has failed by the end, the test fails with its error."""
    async with Engine(settings) as engine:
        failure = asyncio.ensure_future(engine.failed())
        try:
            yield engine
            if failure.done():
                failure.result()
        finally:
            failure.cancel()
            await asyncio.gather(failure, return_exceptions=True)
