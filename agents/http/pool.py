"""Connections that are kept open, shared by all requests of a process.

Invariants: one set of transports an event loop, closed when the loop ends; the task that waits for that belongs to
nobody's context, since the first request may come from a workflow, whose end takes its own tasks along; nothing of one
request (cookies, logins) is kept for the next, or logged; proxies come from the usual variables, and what goes through
one is checked as well as it can be: by name, before it is sent.
"""

import asyncio
import contextvars
import logging
import urllib.request
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

import httpcore
import httpx

from ..errors import AgentError
from .failures import INVALID_REQUEST
from .reach import GuardedBackend, Reach, Resolve, resolve, within_reach

MAX_CONNECTIONS: Final = 200  # a worker runs 100 instances at once unless told otherwise
MAX_IDLE: Final = 20
IDLE_SECONDS: Final = 30.0  # below what servers commonly keep theirs open


_silent: Final = contextvars.ContextVar("runtara_http_silent", default=False)


def _may_be_logged(record: logging.LogRecord) -> bool:
    """At its debug level httpcore writes the headers of answers, which may hold secrets: not those of our requests."""
    return not _silent.get()


for _part in ("connection", "http11", "proxy"):
    logging.getLogger(f"httpcore.{_part}").addFilter(_may_be_logged)


class _Direct(httpx.AsyncHTTPTransport):
    """httpx's transport with a backend of ours, which it has no argument for."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=backend,
        )


@dataclass(slots=True, eq=False)
class _Transports:
    """Those of one event loop, by proxy; None: directly."""

    by_proxy: dict[str | None, httpx.AsyncBaseTransport] = field(default_factory=dict)
    closing: asyncio.Task[None] | None = None


class Pool:
    """Chooses the transport of a request. `resolve_names` is how names become addresses."""

    def __init__(self, reach: Reach, resolve_names: Resolve = resolve) -> None:
        self._reach = reach
        self._resolve = resolve_names
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Transports] = WeakKeyDictionary()

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The answer to one request, its body still to be read. Raises `httpx.TransportError` or `AgentError`."""
        proxy = _proxy_of(request.url)
        if proxy is not None:
            await self._check(request.url)
        silent = _silent.set(True)
        try:
            return await self._transport(proxy).handle_async_request(request)
        finally:
            _silent.reset(silent)

    async def close(self) -> None:
        """Close what is open in this event loop; a later request opens it again."""
        transports = self._of_loop.pop(asyncio.get_running_loop(), None)
        if transports is not None and transports.closing is not None:
            transports.closing.cancel()
            await asyncio.wait([transports.closing])

    def _transport(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        transports = self._of_loop.setdefault(loop, _Transports())
        if transports.closing is None:
            transports.closing = loop.create_task(
                _close_at_the_end(transports), name="http pool", context=contextvars.Context()
            )
        found = transports.by_proxy.get(proxy)
        if found is None:
            found = transports.by_proxy[proxy] = self._make(proxy)
        return found

    def _make(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        if proxy is None:
            return _Direct(GuardedBackend(self._reach, self._resolve))
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE, keepalive_expiry=IDLE_SECONDS
        )
        try:
            return httpx.AsyncHTTPTransport(proxy=proxy, limits=limits)
        except (ImportError, ValueError, httpx.InvalidURL) as exc:
            raise AgentError(INVALID_REQUEST, "the proxy that the environment names cannot be used") from exc

    async def _check(self, url: httpx.URL) -> None:
        """A proxy resolves names itself; those that we do not know are its business."""
        try:
            addresses = await self._resolve(url.host, url.port or 0)
        except httpcore.ConnectError:
            return
        await within_reach(self._reach, url.host, addresses)


def _proxy_of(url: httpx.URL) -> str | None:
    proxies = urllib.request.getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or urllib.request.proxy_bypass(url.host):
        return None
    return found if "://" in found else f"http://{found}"


async def _close_at_the_end(transports: _Transports) -> None:
    """Waits to be cancelled, as `asyncio.run` does with all tasks that are left."""
    try:
        await asyncio.Event().wait()
    finally:
        for transport in transports.by_proxy.values():
            await transport.aclose()
