"""The agent itself: builds the request, follows redirects, reads the answer, says what went wrong.

Invariants: redirects are bounded and each is built, checked and connected like a request of its own; one deadline holds
for all of it; no error holds the connection's secret, whoever wrote it there.
"""

import asyncio
from functools import cache
from typing import Final

import httpx
from pydantic import JsonValue

from runtara.infra.settings import Settings

from ..agent import agent, capability
from ..connections import HttpConnection, without_secrets
from ..errors import AgentError
from ..models import INVALID_DATA
from . import answers, failures, requests
from .models import HttpRequest, HttpResponse
from .pool import Pool
from .reach import Reach

MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ERROR: Final = 400


@agent("http", display_name="HTTP", side_effects=True, connections=("http_bearer", "http_api_key", "http_basic"))
class Http:
    """Requests to other services by HTTP."""

    def __init__(self, pool: Pool | None = None) -> None:
        """All of them share the connections of the process, unless given a `pool`."""
        self._pool = pool or _shared(Settings.load().http_allow_private)

    @capability(
        "http-request",
        aliases=("request",),
        display_name="HTTP request",
        rate_limited=True,
        errors=(*failures.CODES, INVALID_DATA),
    )
    async def request(self, inputs: HttpRequest, connection: HttpConnection | None = None) -> HttpResponse:
        """Sends a request and gives the answer.

        Failures of the network, a status of 500 or more, and 429 are transient; what the answer's Retry-After says is
        honoured. Other statuses of 400 or more are permanent. Private and local addresses are refused unless the
        operator allows them.
        """
        try:
            return await self._request(inputs, connection)
        except AgentError as exc:
            if connection is None:
                raise
            raise without_secrets(exc, connection) from None

    async def close(self) -> None:
        """Close the connections that this event loop keeps open."""
        await self._pool.close()

    async def _request(self, inputs: HttpRequest, connection: HttpConnection | None) -> HttpResponse:
        request = requests.build(inputs, connection)
        seconds = inputs.timeout_ms / 1000
        try:
            async with asyncio.timeout(seconds):
                request, response = await self._follow(request, connection)
                content = await answers.read(request.url, response)
        except TimeoutError as exc:
            raise failures.timed_out(request.url, seconds) from exc
        except httpx.TransportError as exc:
            raise failures.unreachable(request.url, exc) from exc
        status = response.status_code
        if status >= _ERROR and inputs.fail_on_error:
            raise failures.refused_status(request.url, status, response.headers, answers.as_text(content))
        return HttpResponse(
            status_code=status,
            headers=answers.headers_of(response.headers),
            body=_body(inputs, request.url, response, content),
            success=response.is_success,
        )

    async def _follow(
        self, request: httpx.Request, connection: HttpConnection | None
    ) -> tuple[httpx.Request, httpx.Response]:
        """The last request of a chain of redirects, and its answer."""
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._pool.send(request)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return request, response
            await answers.discard(response)
            request = requests.follow(request, response, connection)
        message = f"{failures.shown(request.url)} redirects more than {MAX_REDIRECTS} times"
        raise AgentError(failures.TOO_MANY_REDIRECTS, message, attributes={"url": failures.shown(request.url)})


@cache
def _shared(allowed: str | None) -> Pool:
    """The pool of this process: a workflow makes its `Http()` anew in each run."""
    return Pool(Reach.parse(allowed))


def _body(inputs: HttpRequest, url: httpx.URL, response: httpx.Response, content: bytes) -> JsonValue:
    """An error's page is often text where JSON was asked for; it is then given as it is."""
    if inputs.method == "HEAD":
        return None
    try:
        return answers.parse(url, response.headers, content, inputs.response_type)
    except AgentError:
        if response.status_code < _ERROR or inputs.response_type != "json":
            raise
        return answers.as_text(content)
