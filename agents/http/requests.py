"""From the inputs of a capability, and a connection, to a request that can be sent.

Invariants: the secret of a connection with a `base_url` goes to that origin only; headers that say how a message is
framed or whom it is for are not the author's; nothing is sent before all of it is known to be well-formed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, assert_never

import httpx
from pydantic import JsonValue, TypeAdapter, ValidationError

from ..connections import HttpApiKey, HttpBasic, HttpBearer, HttpConnection
from ..errors import AgentError
from ..models import Data, FileObject, decode_base64, read_bytes
from .failures import INVALID_REQUEST, OTHER_ORIGIN, shown
from .models import HttpRequest, ResponseType, Scalar

_OURS: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive",
    "proxy-authorization", "proxy-connection", "accept-encoding", "expect",
})  # fmt: skip
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d+(/|$))")  # `localhost:8080/a` has none
_HOST: Final = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")  # a name, or an IPv6 address
_MAX_PORT: Final = 65_535
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECRET_HEADERS: Final = ("authorization", "cookie")
_ACCEPT: Final[Mapping[ResponseType, str]] = {
    "json": "application/json, */*;q=0.5",
    "text": "text/*, */*;q=0.5",
    "binary": "*/*",
}
_DATA: Final[TypeAdapter[Data]] = TypeAdapter(Data)
_SWITCH_TO_GET: Final = frozenset({301, 302, 303})
Part = tuple[str | None, bytes | str, str | None]


def build(inputs: HttpRequest, connection: HttpConnection | None) -> httpx.Request:
    """The request. Raises `AgentError` HTTP_INVALID_REQUEST or HTTP_OTHER_ORIGIN."""
    url = _address(inputs, connection)
    headers = {"accept": _ACCEPT[inputs.response_type], "user-agent": "runtara", "accept-encoding": "gzip, deflate"}
    headers |= _login(connection) | _own_headers(inputs.headers)
    body = {} if inputs.body is None else _body(inputs, headers)
    try:
        return httpx.Request(inputs.method, url, headers=headers, **body)
    except (ValueError, TypeError, UnicodeError) as exc:
        raise _invalid(f"it cannot be written: {exc}") from exc


def follow(request: httpx.Request, response: httpx.Response, connection: HttpConnection | None) -> httpx.Request:
    """The request that a redirect asks for; to another origin it carries no secret. Raises `AgentError`."""
    try:
        url = request.url.join(response.headers["location"])
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise _invalid(f"{shown(request.url)} redirects to what is no address") from exc
    url = url.copy_with(userinfo=b"")  # a login that a server makes up is nobody's
    _check(url)
    headers = httpx.Headers(request.headers)
    headers["host"] = url.netloc.decode("ascii")
    if _origin(url) != _origin(request.url):
        for name in (*_SECRET_HEADERS, *_login(connection)):
            headers.pop(name, None)
    if response.status_code in _SWITCH_TO_GET and request.method not in ("GET", "HEAD"):
        for name in ("content-length", "content-type", "transfer-encoding"):
            headers.pop(name, None)
        return httpx.Request("GET", url, headers=headers)
    return httpx.Request(request.method, url, headers=headers, stream=request.stream)


def _address(inputs: HttpRequest, connection: HttpConnection | None) -> httpx.URL:
    base = None if connection is None else connection.base_url
    text = inputs.url.strip()
    absolute = _SCHEME.match(text) is not None
    try:
        if not absolute and base is None:
            raise _invalid("the url has no scheme, and no connection with a base_url is given")
        url = httpx.URL(text if absolute else f"{(base or '').rstrip('/')}/{text.lstrip('/')}")
        url = _with_query(url, inputs)
    except (httpx.InvalidURL, UnicodeError, TypeError) as exc:
        raise _invalid(f"the url is none: {exc}") from exc
    _check(url)
    if base is not None and _origin(url) != _origin(httpx.URL(base)):
        message = (
            f"the connection is for {shown(httpx.URL(base))}, and the request for {shown(url)}; call that without it"
        )
        raise AgentError(OTHER_ORIGIN, message, attributes={"url": shown(url)})
    return url


def _with_query(url: httpx.URL, inputs: HttpRequest) -> httpx.URL:
    """The parameters are added to what the address has itself."""
    if not inputs.query_parameters:
        return url
    return url.copy_with(params=[*url.params.multi_items(), *_pairs(inputs.query_parameters)])


def _check(url: httpx.URL) -> None:
    if url.userinfo:
        raise _invalid("its address holds a login, which the log would keep; put it into a connection (http_basic)")
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host) or (url.port or 0) > _MAX_PORT:
        raise _invalid(f"{shown(url)} is no http or https address of a host")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    wrong = sorted(lower.keys() & _OURS)
    if wrong:
        raise _invalid(f"the header {wrong[0]!r} is set by the agent itself")
    return _checked(lower)


def _checked(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or not value.isascii() or _CONTROL.search(value):
            raise _invalid(f"the header {name!r} holds a character that no header may")
    return headers


def _login(connection: HttpConnection | None) -> dict[str, str]:
    return _checked(_login_of(connection))


def _login_of(connection: HttpConnection | None) -> dict[str, str]:
    match connection:
        case None:
            return {}
        case HttpBearer():
            return {"authorization": f"Bearer {connection.token.get_secret_value()}"}
        case HttpApiKey():
            return {connection.header_name.lower(): connection.api_key.get_secret_value()}
        case HttpBasic():
            return {"authorization": f"Basic {connection.encoded()}"}
        case _:
            assert_never(connection)


def _body(inputs: HttpRequest, headers: dict[str, str]) -> dict[str, Any]:
    """The arguments of `httpx.Request` that write the body; a content type that the author gives is kept."""
    match inputs.body_type:
        case "json":
            return {"json": inputs.body}
        case "text":
            headers.setdefault("content-type", "text/plain; charset=utf-8")
            return {"content": _text(inputs.body, "a body of type text").encode("utf-8", "surrogatepass")}
        case "binary":
            content, mime_type = _binary(inputs.body)
            headers.setdefault("content-type", mime_type)
            return {"content": content}
        case "form":
            encoded = str(httpx.QueryParams(list(_pairs(_fields(inputs.body)))))
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
            return {"content": encoded.encode()}
        case "multipart":
            headers.pop("content-type", None)  # it has to name the boundary
            return {"files": list(_parts(_fields(inputs.body)))}
        case _:
            assert_never(inputs.body_type)


def _binary(body: JsonValue) -> tuple[bytes, str]:
    data = _data(body)
    if isinstance(data, str):
        return decode_base64(data, "a body of type binary that is a text"), "application/octet-stream"
    mime_type = data.mime_type if isinstance(data, FileObject) else None
    return read_bytes(data), mime_type or "application/octet-stream"


def _data(body: object) -> Data:
    try:
        return _DATA.validate_python(body)
    except ValidationError:
        raise _invalid("a body of type binary is base64, an array of bytes, or a file object") from None


def _fields(body: JsonValue) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise _invalid("a body of type form or multipart is an object of fields")
    return body


def _pairs(fields: Mapping[str, Scalar | list[Scalar]]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                yield name, _text(item, f"the field {name!r}")


def _parts(fields: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                file = _data(item)
                assert isinstance(file, FileObject)  # the only form of data that is an object
                yield name, (file.filename or name, read_bytes(file), file.mime_type)
            elif item is not None:
                yield name, (None, _text(item, f"the field {name!r}"), None)


def _text(value: object, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _invalid(f"{what} is a text, a number or a boolean")


def _invalid(reason: str) -> AgentError:
    return AgentError(INVALID_REQUEST, f"the request cannot be sent: {reason}")
