"""NATS and Postgres over TLS, with an authority of our own, on loopback."""

import asyncio
import dataclasses
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.login import tls_of
from runtara.infra.postgres import is_migrated, migrate, open_pool
from runtara.infra.settings import Settings
from runtara.protocol.errors import InvalidSetting, PlatformUnreachable
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.faults import faulty
from tests.support.nats import OwnNats
from tests.support.platform import deploy, running

pytestmark = pytest.mark.timeout(90)
SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
FLOWS = str(Path(faulty.__file__ or ""))


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, and what it vouches for: a server at 127.0.0.1 and a client."""
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem",
            folder=tmp_path)  # fmt: skip
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=tmp_path)
        (tmp_path / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-extfile", f"{name}.ext", "-out", f"{name}.pem", folder=tmp_path)  # fmt: skip
    return tmp_path


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def nats(certificates: Path, tmp_path: Path, stack: AsyncExitStack) -> OwnNats:
    """In operator mode, and only for clients with a certificate."""
    keys = tmp_path / "keys"
    keys.mkdir()
    nats = OwnNats(tmp_path)
    tls = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    lines = [f"{name}: {json.dumps(str(certificates / file))}" for name, file in tls.items()]
    ring = KeyRing.load_or_create(keys)
    nats.configure(f"{ring.configuration(tmp_path / 'accounts')}\ntls {{ verify: true\n" + "\n".join(lines) + "\n}")
    await stack.enter_async_context(nats.server)
    await nats.server.wait_up()
    return nats


class TlsOnly:
    """In front of Postgres: takes TLS and a certificate that our authority has signed, and nothing else.

    The Postgres of the wheel was built without TLS, so what it would do is done here, as its protocol has it.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        try:
            if await reader.readexactly(8) != SSL_REQUEST:
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._context)
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await asyncio.gather(relay(reader, ours), relay(theirs, writer))
            finally:
                ours.transport.abort()
        except (OSError, asyncio.IncompleteReadError):  # a handshake that failed, too
            pass
        finally:
            writer.transport.abort()


async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.transport.abort()


@pytest.fixture
async def site(
    settings: Settings, nats: OwnNats, certificates: Path, stack: AsyncExitStack, tmp_path: Path
) -> Settings:
    """Settings for both servers over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    address = urlsplit(settings.require_database_url())
    assert address.port is not None
    port = await stack.enter_async_context(TlsOnly(address.port, context))
    return dataclasses.replace(
        settings,
        nats_url=nats.url.replace("nats://", "tls://"),
        nats_keys=str(tmp_path / "keys"),
        database_url=settings.require_database_url().replace(f":{address.port}/", f":{port}/"),
        tls_ca=str(certificates / "ca.pem"),
        tls_certificate=str(certificates / "client.pem"),
        tls_key=str(certificates / "client.key"),
    )


async def test_a_whole_platform_over_tls_and_nobody_without_a_certificate(
    site: Settings, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await deploy(site)
    await stack.enter_async_context(running(site))
    await stack.enter_async_context(Pool(site, [FLOWS]))
    client = await stack.enter_async_context(Client(site))
    handle = await client.start(faulty.steps, folder=str(tmp_path), number=1, count=3, id="i-1")
    assert await handle.result(timeout=20) == [1_000, 1_001, 1_002]

    bare = dataclasses.replace(site, tls_certificate=None, tls_key=None)
    with pytest.raises(PlatformUnreachable, match="NATS"):
        await deploy(bare)
    untrusting = dataclasses.replace(site, tls_ca=None)
    with pytest.raises(PlatformUnreachable, match="NATS"):
        await deploy(untrusting)
    for query, words in (("?sslmode=disable", "closed"), ("", "certificate verify failed")):
        with pytest.raises(PlatformUnreachable, match=f"Postgres.*{words}"):
            await open_pool(f"{site.database_url}{query}", site.deployment, tls=tls_of(untrusting))


async def test_a_server_without_tls_is_told_nothing_where_the_address_says_tls(settings: Settings) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","max_payload":1000,"nonce":"abc","tls_required":false}\r\n')
        heard.append(await reader.read(1_000))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(PlatformUnreachable, match="NATS"):
            await deploy(dataclasses.replace(settings, nats_url=url))
    assert b"CONNECT" not in b"".join(heard)


async def test_what_the_address_says_of_tls_holds_too(site: Settings) -> None:
    """Without settings of ours: as every Postgres client reads it."""
    query = f"sslmode=verify-full&sslrootcert={site.tls_ca}&sslcert={site.tls_certificate}&sslkey={site.tls_key}"
    url = f"{site.database_url}?{query}"
    await migrate(url, site.deployment)
    async with await open_pool(url, site.deployment, size=1) as pool:
        assert await is_migrated(pool)


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="tls_ca"):
        tls_of(Settings(tls_ca=str(tmp_path / "missing")))
    with pytest.raises(InvalidSetting, match="tls_certificate"):
        tls_of(Settings(tls_certificate=str(tmp_path / "missing")))
