"""The API server of Kubernetes as a runner needs it: list, watch, create, delete on three resources, and a pod's log.

Ours over httpx, because these five calls are all there is: kubernetes_asyncio takes 71 MB, kr8s 57 MB, lightkube 15
MB (with a watch that has no bookmarks, no read time-out and hides `Retry-After`), httpx 5 MB with all that it needs.

Invariants: every call is bounded in time; a stream that is silent for longer than the server lets it live counts as
broken; nothing of httpx leaves this module: an error is `ClusterAway` (ask again, not before `retry_after`) or
`ClusterRefused` (asking again would not help).
"""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import httpx
import msgspec

from runtara.protocol.errors import InvalidSetting, Refused, Unavailable

from .access import Access
from .objects import Thing

T = TypeVar("T", bound=Thing)
Manifest = Mapping[str, object]  # an object as it is written, in JSON's types

CALL_SECONDS: Final = 15.0
WATCH_SECONDS: Final = 60  # then the server ends a watch, and we begin the next where it ended
SILENCE_SECONDS: Final = WATCH_SECONDS + CALL_SECONDS  # a watch that says nothing for so long has no server any more
MAX_LINE_BYTES: Final = 16 * 1024 * 1024  # of a watch; an object has 1.5 MB at most
MAX_RETRY_AFTER_SECONDS: Final = 60.0  # whatever a server asks for
PAGE: Final = 200  # objects of a list at once
CONNECTIONS: Final = 50  # two for the watches, the others for what is launched and ended just now
_QUOTA: Final = "exceeded quota"  # a refusal that the end of some other Job takes back


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    group: str
    plural: str


JOBS: Final = Resource(group="apis/batch/v1", plural="jobs")
PODS: Final = Resource(group="api/v1", plural="pods")
SECRETS: Final = Resource(group="api/v1", plural="secrets")


class ClusterAway(Unavailable):
    """`retry_after` seconds were asked for by the server, if any."""

    template = "the Kubernetes API server does not answer: {reason}"
    reason: str
    retry_after: float | None


class ClusterRefused(Refused):
    """What the API server said. `status` is that of HTTP: 404 there is none, 409 there is one, 410 too old."""

    template = "the Kubernetes API server says: {reason}"
    reason: str
    status: int


class RightMissing(ClusterRefused):
    template = (
        "the runner may not {verb} {resource} in namespace {namespace}: {reason}; its Role must grant that "
        "(compose/kubernetes/base/runner.yaml has one)"
    )
    verb: str
    resource: str
    namespace: str


class Listed(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What there was at resource version `version`."""

    items: list[T]
    version: str


class Change(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """`type`: ADDED, MODIFIED, DELETED or BOOKMARK, of which only the version counts."""

    type: str
    object: T


class _ListMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    resource_version: str = ""
    cont: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: list[T] | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    message: str | None = None
    reason: str | None = None
    code: int | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    object: msgspec.Raw


class ApiServer:
    """Speaks for one namespace. An async context manager."""

    def __init__(self, access: Access) -> None:
        self.namespace = access.namespace
        self._ahead: timedelta | None = None
        self._access = access
        self._http = httpx.AsyncClient(
            base_url=access.server, verify=access.tls or False, timeout=CALL_SECONDS,
            limits=httpx.Limits(max_connections=CONNECTIONS),
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def now(self) -> datetime:
        """What the server's clock shows, which the times in its objects are of; ours, until it has answered once."""
        return datetime.now(UTC) if self._ahead is None else _steady() + self._ahead

    def _see_clock(self, response: httpx.Response) -> None:
        """To the second: it says no more."""
        with contextlib.suppress(ValueError):
            self._ahead = parsedate_to_datetime(response.headers.get("Date", "")) - _steady()

    async def list(self, resource: Resource, type: type[T], selector: str) -> Listed[T]:
        """All pages. Raises `ClusterRefused` with status 410 where that took too long."""
        items: list[T] = []
        params = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            answer = await self._call("GET", "list", resource, params=params)
            page = _decode(answer, _Page[type])  # type: ignore[valid-type]
            items += page.items or []
            if not page.metadata.cont:
                return Listed(items=items, version=page.metadata.resource_version)
            params["continue"] = page.metadata.cont

    async def watch(self, resource: Resource, type: type[T], selector: str, version: str) -> AsyncIterator[Change[T]]:
        """What changes after `version`, until the server ends it. Raises `ClusterRefused` with status 410 where the
        server no longer knows what changed since."""
        params = {
            "labelSelector": selector, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        request = self._http.build_request(
            "GET", self._path(resource), params=params, headers=self._headers(),
            timeout=httpx.Timeout(CALL_SECONDS, read=SILENCE_SECONDS),
        )  # fmt: skip
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                self._check(response, "watch", resource)
                async for line in _lines(response):
                    yield self._change(line, type)
            finally:
                await response.aclose()
        except httpx.HTTPError as exc:
            raise _away(exc) from exc

    async def create(self, resource: Resource, manifest: Manifest, type: type[T]) -> T:
        answer = await self._call("POST", "create", resource, body=manifest)
        return _decode(answer, type)

    async def delete(self, resource: Resource, name: str, *, propagation: str) -> None:
        """`propagation` Foreground: it is there until what it owns is gone."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        await self._call("DELETE", "delete", resource, name=name, body=body)

    async def log(self, pod: str, *, lines: int, limit_bytes: int) -> bytes:
        """The last `lines` that it wrote."""
        params = {"tailLines": str(lines), "limitBytes": str(limit_bytes)}
        log = Resource(group=PODS.group, plural="pods/log")
        return await self._call("GET", "get", log, name=pod, params=params)

    async def _call(
        self, method: str, verb: str, resource: Resource, *, name: str | None = None,
        params: Mapping[str, str] | None = None, body: Manifest | None = None,
    ) -> bytes:  # fmt: skip
        try:
            response = await self._http.request(
                method, self._path(resource, name), params=params, headers=self._headers(),
                content=None if body is None else msgspec.json.encode(body),
            )  # fmt: skip
        except httpx.HTTPError as exc:
            raise _away(exc) from exc
        self._see_clock(response)
        self._check(response, verb, resource)
        return response.content

    def _path(self, resource: Resource, name: str | None = None) -> str:
        plural, _, part = resource.plural.partition("/")
        tokens = [resource.group, "namespaces", self.namespace, plural, name, part]
        return "/" + "/".join(token for token in tokens if token)

    def _headers(self) -> dict[str, str]:
        """Raises `ClusterAway` while the token's file cannot be read: it is replaced every hour."""
        try:
            authorization = self._access.authorization()
        except InvalidSetting as exc:
            raise ClusterAway(reason=str(exc), retry_after=None) from exc
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return headers if authorization is None else {**headers, "Authorization": authorization}

    def _check(self, response: httpx.Response, verb: str, resource: Resource) -> None:
        status = response.status_code
        if response.is_success:
            return
        reason = _said(response)
        if status == 429 or status >= 500 or (status == 403 and _QUOTA in reason):
            raise ClusterAway(reason=f"{status}: {reason}", retry_after=_retry_after(response))
        if status == 403:
            raise RightMissing(
                verb=verb, resource=resource.plural, namespace=self.namespace, reason=reason, status=status
            )
        if status == 401:
            reason = (
                f"it does not accept who we say we are ({reason}); see the service account's token or the kubeconfig"
            )
        raise ClusterRefused(reason=reason, status=status)

    def _change(self, line: bytes, type: type[T]) -> Change[T]:
        event = _decode(line, _Event)
        if event.type == "ERROR":
            status = _decode(event.object, _Status)
            reason = status.message or status.reason or "the watch failed"
            if status.code == 410:
                raise ClusterRefused(reason=reason, status=410)
            raise ClusterAway(reason=reason, retry_after=None)
        return Change(type=event.type, object=_decode(event.object, type))


def _steady() -> datetime:
    """A clock that nobody sets, and that began at some time."""
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=time.monotonic())


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """As the server means them: httpx's own also end where a value has one of Unicode's many line ends."""
    rest = b""
    async for data in response.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ClusterAway(reason=f"a watch said more than {MAX_LINE_BYTES:,} bytes at once", retry_after=None)


M = TypeVar("M")


def _decode(data: bytes | msgspec.Raw, type: type[M]) -> M:
    """Half a line of a stream that broke, or what is no API server at all, does not decode."""
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.MsgspecError as exc:
        raise ClusterAway(reason=f"what it says cannot be read: {exc}", retry_after=None) from exc


def _said(response: httpx.Response) -> str:
    try:
        message = msgspec.json.decode(response.content, type=_Status).message
    except msgspec.MsgspecError:
        message = None
    return message or response.text[:200].strip() or response.reason_phrase


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_SECONDS) if text.isascii() and text.isdigit() else None


def _away(error: httpx.HTTPError) -> ClusterAway:
    return ClusterAway(reason=str(error) or type(error).__name__, retry_after=None)
