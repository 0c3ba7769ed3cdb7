"""The HTTP agent against a real server that does what servers do at their worst."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from runtara.agents import AgentError, FileObject
from runtara.agents.connections import HttpBearer
from runtara.agents.http import Http, HttpRequest, answers, requests
from runtara.agents.http.pool import Pool
from runtara.agents.http.reach import Reach
from tests.support.http_server import HttpServer, Seen, always, answer, forward_proxy, http_server, raw

LOCAL = Reach.parse("all")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http(Pool(LOCAL))
    yield made
    await made.close()


async def fails(http: Http, **inputs: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await http.request(HttpRequest(**inputs))
    return caught.value


# what is sent


@pytest.mark.smoke
async def test_a_json_request_is_answered_in_json(http: Http, server: HttpServer) -> None:
    server.routes["/orders"] = always(201, b'{"id": 7, "name": "\xc3\xbc"}', X_Mark="a")
    made = await http.request(HttpRequest(
        method="POST", url=f"{server.url}/orders?a=1", query_parameters={"b": [2, True, None], "c": "x y"},
        headers={"X-Trace": "t"}, body={"n": [1, None]},
    ))  # fmt: skip
    assert (made.status_code, made.body, made.success) == (201, {"id": 7, "name": "ü"}, True)
    assert made.headers["x-mark"] == "a"
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("POST", "/orders?a=1&b=2&b=true&c=x+y")
    assert (json.loads(seen.body), seen.headers["content-type"]) == ({"n": [1, None]}, "application/json")
    assert (seen.headers["x-trace"], seen.headers["host"]) == ("t", f"127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    ("body_type", "body", "content", "content_type"),
    [
        ("json", 0, b"0", "application/json"),
        ("text", "grüße", "grüße".encode(), "text/plain; charset=utf-8"),
        ("text", 17, b"17", "text/plain; charset=utf-8"),
        ("binary", base64.b64encode(b"\0\xff").decode(), b"\0\xff", "application/octet-stream"),
        ("binary", [0, 255], b"\0\xff", "application/octet-stream"),
        ("binary", FileObject.of(b"\0", mime_type="image/png").model_dump(by_alias=True), b"\0", "image/png"),
        ("form", {"a": "x y&", "b": [1, 2.5], "c": None}, b"a=x+y%26&b=1&b=2.5", "application/x-www-form-urlencoded"),
    ],
)
async def test_bodies_of_every_type(
    http: Http, server: HttpServer, body_type: Any, body: Any, content: bytes, content_type: str
) -> None:
    server.routes["/"] = always()
    await http.request(HttpRequest(method="PUT", url=server.url, body=body, body_type=body_type))
    assert (server.seen[0].body, server.seen[0].headers["content-type"]) == (content, content_type)


async def test_a_multipart_body_carries_files_and_fields(http: Http, server: HttpServer) -> None:
    server.routes["/"] = always()
    file = FileObject.of(b"a,b\n", filename="a.csv", mime_type="text/csv").model_dump(by_alias=True)
    body: Any = {"file": file, "kind": ["x", 1]}
    await http.request(HttpRequest(method="POST", url=server.url, body=body, body_type="multipart"))
    (seen,) = server.seen
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\na,b\n\r\n' in seen.body
    assert seen.body.count(b'name="kind"') == 2
    assert b"filename" not in seen.body.split(b'name="kind"')[1]


async def test_a_content_type_of_the_authors_is_kept(http: Http, server: HttpServer) -> None:
    server.routes["/"] = always()
    await http.request(
        HttpRequest(method="POST", url=server.url, body="<a/>", body_type="text", headers={"Content-Type": "text/xml"})
    )
    assert server.seen[0].headers["content-type"] == "text/xml"


@pytest.mark.parametrize(
    "inputs",
    [
        {"url": "orders"},
        {"url": "/orders"},
        {"url": "ftp://example.org/"},
        {"url": "file:///etc/passwd"},
        {"url": "http://"},
        {"url": "http://ada:secret@example.org/"},
        {"url": "https:\\\\example.org"},
        {"headers": {"X-A": "ü"}},
        {"url": "http://[::1/"},
        {"url": "http://a b/"},
        {"url": "http://example.org:99999/"},
        {"headers": {"Host": "other"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"transfer-encoding": "chunked"}},
        {"headers": {"X-A": "1\r\nX-B: 2"}},
        {"headers": {"X A": "1"}},
        {"body": {"a": 1}, "body_type": "binary"},
        {"body": {"a": 1}, "body_type": "text"},
        {"body": "a=1", "body_type": "form"},
        {"body": {"a": {"b": 1}}, "body_type": "form"},
        {"body": {"a": {"b": 1}}, "body_type": "multipart"},
        {"body": {"a": [[1]]}, "body_type": "multipart"},
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(
    http: Http, server: HttpServer, inputs: dict[str, Any]
) -> None:
    error = await fails(http, **{"url": server.url, "method": "POST", **inputs})
    assert (error.code, error.permanent) == ("HTTP_INVALID_REQUEST", True)
    assert server.connections == 0


URLS = st.one_of(
    st.text(),
    st.text().map("http://{}".format),
    st.text("htps:/[]@.?#%\\a1\u212a\u3002 \t", max_size=30),
    st.just("//x"),
)


@given(URLS, st.sampled_from([None, "https://api.example.org/v1"]), st.text(max_size=10))
def test_no_address_and_no_parameter_does_anything_but_make_a_request_or_be_refused(
    url: str, base: str | None, value: str
) -> None:
    connection = None if base is None else HttpBearer(token=SecretStr("t"), base_url=base)
    try:
        made = requests.build(HttpRequest(url=url, query_parameters={"q": value}, headers={"x-a": value}), connection)
    except (AgentError, ValidationError):
        return
    assert made.url.scheme in ("http", "https")
    assert made.url.host
    assert base is None or made.url.host == "api.example.org"
    assert made.url.params["q"] == value


async def test_a_binary_text_that_is_no_base64_is_refused(http: Http, server: HttpServer) -> None:
    error = await fails(http, url=server.url, method="POST", body="not base64!", body_type="binary")
    assert (error.code, server.seen) == ("AGENT_INVALID_DATA", [])


# what comes back


@pytest.mark.parametrize(
    ("response_type", "content", "body"),
    [
        ("json", b"[1, 2]", [1, 2]),
        ("json", b"", None),
        ("json", b"\n", None),
        ("text", b"gr\xc3\xbc\xc3\x9fe", "grüße"),
        ("text", b"", ""),
        ("binary", b"\0\xff", "AP8="),
    ],
)
async def test_answers_of_every_type(
    http: Http, server: HttpServer, response_type: Any, content: bytes, body: object
) -> None:
    server.routes["/"] = always(200, content)
    assert (await http.request(HttpRequest(url=server.url, response_type=response_type))).body == body


async def test_a_text_is_read_in_the_charset_it_names(http: Http, server: HttpServer) -> None:
    server.routes["/"] = always(200, "grüße".encode("latin-1"), Content_Type='text/plain; charset="iso-8859-1"')
    assert (await http.request(HttpRequest(url=server.url, response_type="text"))).body == "grüße"
    server.routes["/"] = always(200, b"\xff", Content_Type="text/plain; charset=klingon")
    assert (await fails(http, url=server.url, response_type="text")).code == "HTTP_INVALID_RESPONSE"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_an_answer_without_a_body_is_null(http: Http, server: HttpServer, method: Any) -> None:
    server.routes["/"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" if method == "HEAD" else answer(204))
    assert (await http.request(HttpRequest(method=method, url=server.url))).body is None


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(b'"hello"')),
        ("x-gzip", gzip.compress(b'"hel') + gzip.compress(b'lo"')),
        ("deflate", zlib.compress(b'"hello"')),
        ("deflate", zlib.compress(b'"hello"', wbits=-15)),
        ("identity", b'"hello"'),
    ],
)
async def test_compressed_answers_are_read(http: Http, server: HttpServer, encoding: str, content: bytes) -> None:
    server.routes["/"] = always(200, content, Content_Encoding=encoding)
    assert (await http.request(HttpRequest(url=server.url))).body == "hello"


@pytest.mark.parametrize("encoding", ["identity", "gzip", "chunked"])
async def test_an_answer_above_the_limit_is_refused_without_being_held(
    http: Http, server: HttpServer, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = answers.MAX_RESPONSE_BYTES + 1
    match encoding:
        case "gzip":  # 32 KB on the wire
            server.routes["/"] = always(200, gzip.compress(b"\0" * size), Content_Encoding="gzip")
        case "identity":  # the head alone is enough
            server.routes["/"] = raw(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        case _:
            piece = b"10000\r\n" + b"\0" * 65_536 + b"\r\n"
            pieces = piece * (size // 65_536 + 1)
            server.routes["/"] = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
    error = await fails(http, url=server.url, response_type="binary")
    assert (error.code, error.permanent) == ("HTTP_RESPONSE_TOO_LARGE", True)


@pytest.mark.parametrize(
    ("wrong", "code", "category"),
    [
        (answer(200, b"<html>"), "HTTP_INVALID_RESPONSE", "permanent"),
        (answer(200, b"x", Content_Encoding="br"), "HTTP_INVALID_RESPONSE", "permanent"),
        (answer(200, b"not gzip", Content_Encoding="gzip"), "HTTP_INVALID_RESPONSE", "permanent"),
        (answer(200, gzip.compress(b'"abc"')[:-9], Content_Encoding="gzip"), "NETWORK_ERROR", "transient"),
        (b"this is no HTTP\r\n\r\n", "NETWORK_ERROR", "transient"),
        (b"", "NETWORK_ERROR", "transient"),
    ],
)
async def test_answers_that_are_none(http: Http, server: HttpServer, wrong: bytes, code: str, category: str) -> None:
    async def send_and_close(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(wrong)
        await writer.drain()
        writer.close()

    server.routes["/"] = send_and_close
    error = await fails(http, url=server.url)
    assert (error.code, error.category) == (code, category)


async def test_an_answer_that_is_cut_off_is_a_transient_error_and_never_half_an_answer(
    http: Http, server: HttpServer
) -> None:
    async def cut(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2]")
        await writer.drain()
        writer.close()

    server.routes["/"] = cut
    error = await fails(http, url=server.url)
    assert (error.code, error.category) == ("NETWORK_ERROR", "transient")


async def test_a_server_that_hangs_is_left_after_the_time_allowed(http: Http, server: HttpServer) -> None:
    server.routes["/hang"] = server.hang

    async def drip(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not server.let_go.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    server.routes["/drip"] = drip
    for path in ("/hang", "/drip"):
        error = await fails(http, url=server.url + path, timeout_ms=200)
        assert (error.code, error.category) == ("NETWORK_ERROR", "transient")


async def test_a_server_that_is_not_there_is_a_transient_error(http: Http) -> None:
    async with http_server() as gone:
        url = gone.url
    for address in (url, "http://no-such-host.invalid/"):
        error = await fails(http, url=address)
        assert (error.code, error.category) == ("NETWORK_ERROR", "transient")


# statuses


@pytest.mark.parametrize(
    ("status", "code", "category"),
    [
        (400, "HTTP_4XX", "permanent"),
        (404, "HTTP_4XX", "permanent"),
        (429, "HTTP_429", "transient"),
        (500, "HTTP_5XX", "transient"),
        (503, "HTTP_5XX", "transient"),
    ],
)
async def test_statuses_above_399_are_errors_unless_wanted_as_answers(
    http: Http, server: HttpServer, status: int, code: str, category: str
) -> None:
    server.routes["/"] = always(status, b"it is so")
    error = await fails(http, url=f"{server.url}/?token=abcdef")
    assert (error.code, error.category) == (code, category)
    assert error.attributes == {"status_code": status, "url": f"{server.url}/", "body": "it is so"}
    made = await http.request(HttpRequest(url=server.url, fail_on_error=False))
    assert (made.status_code, made.success, made.body) == (status, False, "it is so")


async def test_retry_after_is_honoured_as_seconds_and_as_a_date(http: Http, server: HttpServer) -> None:
    server.routes["/seconds"] = always(429, Retry_After="7")
    assert (await fails(http, url=f"{server.url}/seconds")).retry_after == timedelta(seconds=7)

    theirs = datetime(2030, 1, 1, tzinfo=UTC)  # their clock, not ours, is what the date is meant by
    due = format_datetime(theirs + timedelta(seconds=90), usegmt=True)
    server.routes["/date"] = always(503, Retry_After=due, Date=format_datetime(theirs, usegmt=True))
    assert (await fails(http, url=f"{server.url}/date")).retry_after == timedelta(seconds=90)

    server.routes["/past"] = always(503, Retry_After=format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True))
    assert (await fails(http, url=f"{server.url}/past")).retry_after == timedelta(0)
    for nonsense in ("soon", "-5", "٣", ""):
        server.routes["/nonsense"] = raw(
            f"HTTP/1.1 429 Too\r\nContent-Length: 0\r\nRetry-After: {nonsense}\r\n\r\n".encode()
        )
        assert (await fails(http, url=f"{server.url}/nonsense")).retry_after is None
    server.routes["/gone"] = always(404, Retry_After="7")
    assert (await fails(http, url=f"{server.url}/gone")).retry_after is None


# redirects, connections, proxies


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"), (308, "PUT", "PUT"),
     (302, "HEAD", "HEAD")],
)  # fmt: skip
async def test_redirects_are_followed_as_browsers_do(
    http: Http, server: HttpServer, status: int, method: Any, then: str
) -> None:
    server.routes["/a"] = always(status, b"" if method == "HEAD" else b"moved", Location="../b?x=1")
    server.routes["/b"] = always()
    made = await http.request(HttpRequest(method=method, url=f"{server.url}/a", body={"n": 1}))
    assert made.status_code == 200
    assert (server.seen[1].method, server.seen[1].target) == (then, "/b?x=1")
    assert server.seen[1].body == (b"" if then == "GET" else server.seen[0].body)


async def test_a_circle_of_redirects_ends(http: Http, server: HttpServer) -> None:
    server.routes["/a"] = always(302, Location="/b")
    server.routes["/b"] = always(302, Location="/a")
    error = await fails(http, url=f"{server.url}/a")
    assert (error.code, error.permanent, len(server.seen)) == ("HTTP_TOO_MANY_REDIRECTS", True, 11)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.org", "http://[", "http://a:99999"])
async def test_a_redirect_to_what_is_no_web_address_is_refused(http: Http, server: HttpServer, location: str) -> None:
    server.routes["/"] = always(302, Location=location)
    assert (await fails(http, url=server.url)).code == "HTTP_INVALID_REQUEST"


async def test_connections_are_kept_and_shared(http: Http, server: HttpServer) -> None:
    server.routes["/"] = always(200, b"1")
    server.routes["/moved"] = always(302, b"elsewhere", Location="/")
    for _ in range(5):
        await http.request(HttpRequest(url=server.url))
    await http.request(HttpRequest(url=f"{server.url}/moved"))
    assert (server.connections, len(server.seen)) == (1, 7)
    await asyncio.gather(*(http.request(HttpRequest(url=server.url)) for _ in range(20)))
    assert server.connections <= 20


async def test_cookies_are_not_kept_from_one_request_to_the_next(http: Http, server: HttpServer) -> None:
    server.routes["/"] = always(302, b"", Set_Cookie="session=theirs; Path=/", Location="/next")
    server.routes["/next"] = always()
    await http.request(HttpRequest(url=server.url))
    assert [("cookie" in seen.headers) for seen in server.seen] == [False, False]


def test_an_event_loop_that_ends_closes_what_it_had_open() -> None:
    http = Http(Pool(LOCAL))

    async def once() -> int:
        async with http_server() as server:
            server.routes["/"] = always(200, b"1")
            await http.request(HttpRequest(url=server.url))
            return server.connections

    assert [asyncio.run(once()), asyncio.run(once())] == [1, 1]


async def test_a_proxy_of_the_environment_is_used(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    async with forward_proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        made = await http.request(HttpRequest(url="http://unknown.invalid/a"))
        assert (made.body, proxy.seen[0].target) == ("by the proxy", "http://unknown.invalid/a")
        async with http_server() as server:
            server.routes["/"] = always(200, b'"directly"')
            assert (await http.request(HttpRequest(url=server.url))).body == "directly"


async def test_a_proxy_is_no_way_around_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    http = Http(Pool(Reach()))
    async with forward_proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        for address in ("http://169.254.169.254/latest", "http://localhost:1/", "http://10.0.0.1/"):
            assert (await fails(http, url=address)).code == "HTTP_ADDRESS_BLOCKED"
        assert proxy.seen == []
    await http.close()
