"""`examples/pipeline.py` on a platform, with a real HTTP server and a real OpenSSH server: whatever breaks, the totals
arrive, once and whole."""

import dataclasses
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.http_server import HttpServer, answer, http_server
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of
from tests.support.sshd import Sshd, sshd

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline.py"
DAY = "2026-11-25"
CUSTOMERS = 20_000  # half a megabyte of totals
MIDDLE = 200_000  # bytes that get through before the network holds
ORDERS = "customer,amount\n" + "".join(f"customer-{n % CUSTOMERS:06},0.{n % 10}0\n" for n in range(2 * CUSTOMERS))
TOKEN = "s3cr3t-t0ken"

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture(scope="module")
def files_server() -> Iterator[Sshd]:
    place = Path(tempfile.mkdtemp(prefix="sshd-"))
    place.chmod(0o755)
    with sshd(place / "server") as made:
        yield made
    shutil.rmtree(place)


@pytest.fixture
async def network() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def shop(network: AsyncExitStack) -> HttpServer:
    return await network.enter_async_context(http_server())


@pytest.fixture
async def proxy(network: AsyncExitStack, files_server: Sshd) -> Proxy:
    return await network.enter_async_context(proxy_of(f"tcp://127.0.0.1:{files_server.port}"))


@pytest.fixture
async def pool(
    client: Client, engine: Engine, deployed: Settings, stack: AsyncExitStack, shop: HttpServer, proxy: Proxy,
    files_server: Sshd,
) -> Pool:  # fmt: skip
    """Workers with both connections."""
    await client.connections.set("shop", "http_bearer", {"token": TOKEN, "base_url": shop.url})
    port = int(proxy.url.rsplit(":", 1)[1])
    archive = {
        "host": "127.0.0.1", "port": port, "username": files_server.user, "private_key": files_server.key(),
        "known_hosts": files_server.known_hosts.replace(str(files_server.port), str(port)),
    }  # fmt: skip
    await client.connections.set("archive", "sftp", archive)
    allowed = dataclasses.replace(deployed, http_allow_private="127.0.0.1")
    return await stack.enter_async_context(Pool(allowed, [str(EXAMPLE)]))


def kill_worker(pool: Pool) -> None:
    (child,) = pool.children
    os.kill(child.pid, signal.SIGKILL)


async def test_the_totals_arrive_whole_though_all_that_can_break_does(
    client: Client, pool: Pool, shop: HttpServer, proxy: Proxy, files_server: Sshd
) -> None:
    """The shop throttles, then hangs while the worker is killed; the network to the archive is cut in mid-upload, and
    the worker is killed in mid-upload."""
    files = files_server.files

    async def serve(request: object, writer: object) -> bytes | None:
        match len(shop.seen):
            case 1:
                return answer(429, Retry_After="1")
            case 2:
                return await shop.hang(shop.seen[-1], writer)  # type: ignore[arg-type]
            case _:
                return answer(200, ORDERS.encode(), Content_Type="text/csv; charset=utf-8")

    shop.routes[f"/orders/{DAY}.csv"] = serve
    handle = await client.start("pipeline", {"day": DAY, "folder": str(files)})
    await eventually(lambda: len(shop.seen) == 2)
    proxy.hold_after(MIDDLE)
    kill_worker(pool)

    await eventually(lambda: proxy.holds, within=30)
    assert [entry.suffix for entry in files.iterdir()] == [".part"]
    kill_worker(pool)
    await proxy.cut()
    assert not (files / f"{DAY}.csv").exists()
    await proxy.mend()

    result = await handle.result(timeout=90)
    lines = (files / f"{DAY}.csv").read_text().splitlines()
    assert result == {"orders": 2 * CUSTOMERS, "customers": CUSTOMERS, "bytes": (files / f"{DAY}.csv").stat().st_size}
    assert (lines[0], lines[1], len(lines)) == ("customer,total", "customer-000000,0.00", CUSTOMERS + 1)
    assert len(shop.seen) == 3, "what was fetched is recorded, and not fetched again"
    assert {request.headers["authorization"] for request in shop.seen} == {f"Bearer {TOKEN}"}
    events = [event async for event in handle.history()]
    assert [event.key for event in events if event.type == "CheckpointSaved"] == [
        f"fetch/{DAY}", "read", "write", f"store/{files.as_posix().replace('/', '~1')}~1{DAY}.csv",
    ]  # fmt: skip
    assert not any(TOKEN.encode() in bytes(event.data) for event in events)
