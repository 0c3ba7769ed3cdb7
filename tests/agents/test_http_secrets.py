"""Logging in by connections; and what never shows: secrets in errors, tracebacks, log lines, or at other origins."""

import base64
import logging
import ssl
import subprocess
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtara.agents import AgentError
from runtara.agents.connections import HttpApiKey, HttpBasic, HttpBearer, HttpConnection, parse_connection
from runtara.agents.http import Http, HttpRequest
from runtara.agents.http.pool import Pool
from runtara.agents.http.reach import Reach
from tests.support.http_server import HttpServer, Seen, always, answer, http_server

SECRET = "s3cr3t-t0ken"
BASIC = base64.b64encode(f"ada:{SECRET}".encode()).decode()
TYPES: dict[str, tuple[dict[str, object], str, str]] = {
    "http_bearer": ({"token": SECRET}, "authorization", f"Bearer {SECRET}"),
    "http_api_key": ({"api_key": SECRET}, "x-api-key", SECRET),
    "http_basic": ({"username": "ada", "password": SECRET}, "authorization", f"Basic {BASIC}"),
}


def connect(type: str, **more: object) -> HttpConnection:
    made = parse_connection(type, {**TYPES[type][0], **more})
    assert isinstance(made, (HttpBearer, HttpApiKey, HttpBasic))
    return made


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http(Pool(Reach.parse("all")))
    yield made
    await made.close()


@pytest.mark.parametrize("type", TYPES)
async def test_each_type_logs_in_its_way_unless_the_author_does_it_himself(
    http: Http, server: HttpServer, type: str
) -> None:
    server.routes["/v1/orders/7"] = always()
    connection = connect(type, base_url=f"{server.url}/v1/")
    headers = {"Authorization": "mine", "X-API-Key": "mine"}
    await http.request(HttpRequest(url="/orders/7"), connection)
    await http.request(HttpRequest(url=f"{server.url}/v1/orders/7"), connection)
    await http.request(HttpRequest(url="orders/7", headers=headers), connection)
    _, name, value = TYPES[type]
    assert [seen.headers[name] for seen in server.seen] == [value, value, "mine"]


@pytest.mark.parametrize("type", TYPES)
async def test_a_secret_with_a_base_url_goes_nowhere_else(http: Http, server: HttpServer, type: str) -> None:
    connection = connect(type, base_url="https://api.example.org/v1")
    port = server.port
    for url in (
        server.url,
        "http://api.example.org/v1",
        "https://api.example.org:444/",
        f"http://api.example.org:{port}",
    ):
        with pytest.raises(AgentError) as caught:
            await http.request(HttpRequest(url=url), connection)
        assert (caught.value.code, caught.value.permanent) == ("HTTP_OTHER_ORIGIN", True)
    assert server.connections == 0


@pytest.mark.parametrize("type", TYPES)
async def test_a_secret_does_not_follow_a_redirect_to_another_origin(http: Http, server: HttpServer, type: str) -> None:
    async with http_server() as other:
        other.routes["/b"] = always()
        server.routes["/a"] = always(307, Location=f"{other.url}/b")
        server.routes["/same"] = always(307, Location="/here")
        server.routes["/here"] = always()
        connection, own = connect(type), {"Cookie": f"s={SECRET}"}
        await http.request(HttpRequest(url=f"{server.url}/a", headers=own), connection)
        await http.request(HttpRequest(url=f"{server.url}/same"), connection)
    assert SECRET not in str(other.seen)
    assert BASIC not in str(other.seen)
    assert server.seen[-1].headers[TYPES[type][1]] == TYPES[type][2]


async def echo(request: Seen, writer: Any) -> bytes:
    """As debugging pages do."""
    return answer(500, f"{request.target} {request.headers}".encode())


@pytest.mark.parametrize("type", TYPES)
async def test_no_error_shows_a_secret_even_if_the_server_sends_it_back(
    http: Http, server: HttpServer, type: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = connect(type)
    server.routes["/echo"] = echo
    server.routes["/lie"] = always(200, f"no json, but {SECRET}".encode())
    server.routes["/around"] = always(302, Location=f"/around?key={SECRET}")
    gone = "http://127.0.0.1:1/"
    for url in (f"{server.url}/echo?q={SECRET}", f"{server.url}/lie", f"{server.url}/around", f"{gone}?q={SECRET}",
                f"http://ada:{SECRET}@127.0.0.1:{server.port}/echo"):  # fmt: skip
        with pytest.raises(AgentError) as caught:
            await http.request(HttpRequest(url=url), connection)
        shown = f"{caught.value!r} {caught.value.to_record()} {''.join(traceback.format_exception(caught.value))}"
        assert SECRET not in shown, url
        assert BASIC not in shown, url
    assert SECRET not in caplog.text
    assert BASIC not in caplog.text


@pytest.mark.parametrize("type", ["http_bearer", "http_api_key"])
@pytest.mark.parametrize("end", ["\n", "\r\nX-B: 1", "\0", "ü"])
async def test_a_secret_that_no_header_can_carry_is_refused_and_not_shown(
    http: Http, server: HttpServer, type: str, end: str
) -> None:
    field = "token" if type == "http_bearer" else "api_key"
    with pytest.raises(AgentError) as caught:
        await http.request(HttpRequest(url=server.url), connect(type, **{field: SECRET + end}))
    assert (caught.value.code, server.connections) == ("HTTP_INVALID_REQUEST", 0)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + str(caught.value.to_record())


async def test_the_query_and_the_login_of_an_address_are_never_shown(
    http: Http, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (
        f"http://ada:{SECRET}@127.0.0.1:{server.port}/a?key={SECRET}#{SECRET}",
        f"http://127.0.0.1:1/?{SECRET}",
    ):
        with pytest.raises(AgentError) as caught:
            await http.request(HttpRequest(url=url))
        assert SECRET not in f"{caught.value} {caught.value.to_record()}"
    assert SECRET not in caplog.text


@pytest.fixture
def unknown_certificate(tmp_path: Path) -> ssl.SSLContext:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=nobody", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


async def test_a_certificate_that_nobody_vouches_for_is_a_permanent_error(
    http: Http, unknown_certificate: ssl.SSLContext
) -> None:
    async with http_server(tls=unknown_certificate) as server:
        server.routes["/"] = always()
        with pytest.raises(AgentError) as caught:
            await http.request(HttpRequest(url=server.url), connect("http_bearer"))
    assert (caught.value.code, caught.value.permanent, server.seen) == ("HTTP_TLS_ERROR", True, [])
