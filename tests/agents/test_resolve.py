"""A Python workflow opens a connection by its name, and hands it to an agent; its secret is recorded nowhere."""

from collections.abc import AsyncIterator

import pytest

from runtara.agents.connections import HttpBasic, HttpBearer
from runtara.agents.http import Http, HttpRequest
from runtara.agents.resolve import resolve
from runtara.sdk import Context, WorkflowFailed, workflow
from runtara.sdk.connections import ConnectionValue
from runtara.sdk.testing import MemoryPlatform
from tests.support.http_server import HttpServer, always, http_server

SECRET = "s3cr3t-t0ken"


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpServer]:
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    async with http_server() as made:
        made.routes["/orders"] = always(200, b"[1, 2]")
        yield made


@workflow(connections=("crm",))
async def orders(ctx: Context) -> object:
    crm = await resolve("crm", HttpBearer)
    answered = await ctx.step("orders", Http().request, HttpRequest(url="orders"), crm)
    return answered.body


@workflow(connections=("crm",))
async def mistaken(ctx: Context) -> None:
    assert isinstance(await resolve("crm"), HttpBearer)
    await resolve("crm", HttpBasic)


async def test_it_is_typed_and_its_secret_is_in_no_event(server: HttpServer) -> None:
    crm = ConnectionValue(name="crm", type="http_bearer", fields={"token": SECRET, "base_url": server.url})
    async with MemoryPlatform(connections=[crm]) as platform:
        handle = await platform.start(orders)
        assert await handle.result() == [1, 2]
        assert SECRET not in "".join(bytes(event.data).decode() for event in platform.log(handle.id))
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_one_of_another_type_is_refused(server: HttpServer) -> None:
    crm = ConnectionValue(name="crm", type="http_bearer", fields={"token": SECRET})
    async with MemoryPlatform(connections=[crm]) as platform:
        handle = await platform.start(mistaken)
        with pytest.raises(WorkflowFailed, match="'crm' is of type http_bearer"):
            await handle.result()
