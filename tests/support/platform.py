"""Deployments and engines in the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtara.engine.service import Engine
from runtara.engine.setup import create_deployment
from runtara.infra.bus import Bus
from runtara.infra.settings import Settings


async def connect(settings: Settings, *, url: str | None = None, tenant: str = "default") -> Bus:
    return await Bus.connect(
        url or settings.require_nats_url(),
        name="test",
        inbox=f"_INBOX.{tenant}.test",
        user=settings.nats_user,
        password=settings.nats_password,
    )


async def deploy(settings: Settings) -> str:
    """What `runtara migrate` does; the identity of the deployment."""
    async with await connect(settings) as bus:
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
