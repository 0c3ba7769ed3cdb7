"""The HTTP agent as a step of a Python workflow: recorded, tried again, and waiting as long as the server asks."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from runtara.agents import AgentError
from runtara.agents.http import Http, HttpRequest
from runtara.sdk import Context, Retry, WorkflowFailed, step, workflow
from runtara.sdk.testing import MemoryPlatform
from tests.support.http_server import HttpServer, always, answer, http_server

pytestmark = pytest.mark.usefixtures("allowed")


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as made:
        yield made


@workflow
async def fetch(ctx: Context, url: str) -> object:
    http = Http()
    get = step(key="get", retry=Retry(max_attempts=2), raises=(AgentError,))(http.request)
    answered = await get(HttpRequest(url=url))
    await ctx.sleep(timedelta(days=3))  # what the agent keeps open does not keep the instance in memory
    again = await ctx.step("again", http.request, HttpRequest(url=url))
    return [answered.body, again.status_code]


async def test_a_server_that_throttles_is_waited_for_and_costs_no_tries(server: HttpServer) -> None:
    async def throttle(request: object, writer: object) -> bytes:
        return answer(429, Retry_After="3600") if len(server.seen) <= 5 else answer(200, b'"at last"')

    server.routes["/"] = throttle
    async with MemoryPlatform() as platform:
        began = platform.now
        handle = await platform.start(fetch, url=server.url)
        assert await handle.result() == ["at last", 200]
        assert "InstanceSuspended" in [event.type for event in platform.log(handle.id)]
        assert platform.now - began > timedelta(days=3, hours=5)
    assert len(server.seen) == 7


async def test_a_permanent_error_is_not_tried_again_and_keeps_its_code(server: HttpServer) -> None:
    server.routes["/"] = always(404, b"no such thing")
    async with MemoryPlatform() as platform:
        handle = await platform.start(fetch, url=server.url)
        with pytest.raises(WorkflowFailed, match="HTTP_4XX"):
            await handle.result()
    assert len(server.seen) == 1
