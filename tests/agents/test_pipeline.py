"""`examples/pipeline.py`: fetch, transform and load survive a crash at every record, on real HTTP and SFTP servers."""

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from runtara.sdk import ConnectionValue
from runtara.sdk.testing import assert_crash_safe
from tests.support.http_server import HttpServer, always, http_server
from tests.support.sshd import Sshd, sshd

FILE = Path(__file__).parents[2] / "examples" / "pipeline.py"
PRICES = "sku;name;price\nA-1; Desk ;250.00\nB-7;Stuhl, grün;80.45\nC-3;gone;\n"


@pytest.fixture
async def supplier(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpServer]:
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    async with http_server() as made:
        made.routes["/prices/2026-11-25.csv"] = always(200, PRICES.encode(), Content_Type="text/csv; charset=utf-8")
        yield made


@pytest.fixture
def pipeline(supplier: HttpServer) -> Iterator[Any]:
    spec = spec_from_file_location("pipeline", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["pipeline"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pipeline"]


@pytest.fixture
def shop() -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="sshd-"))
    folder.chmod(0o755)
    with sshd(folder / "server") as made:
        yield made
    shutil.rmtree(folder)


async def test_a_price_list_is_fetched_once_and_loaded_whole(pipeline: Any, supplier: HttpServer, shop: Sshd) -> None:
    connections = (
        ConnectionValue("supplier", "http_bearer", {"token": "t-0123456789", "base_url": supplier.url}),
        ConnectionValue(
            "shop",
            "sftp",
            {"host": "127.0.0.1", "port": shop.port, "username": shop.user, "private_key": shop.key(),
             "known_hosts": shop.known_hosts},
        ),
    )  # fmt: skip
    report = await assert_crash_safe(
        pipeline.price_list, day="2026-11-25", rate=1.08,
        effects=[pipeline.fetch, pipeline.transform, pipeline.load], connections=connections,
    )  # fmt: skip
    text = (shop.files / "prices-2026-11-25.csv").read_text()
    assert text.splitlines() == ["sku,title,price", "A-1,Desk,270.00", 'B-7,"Stuhl, grün",86.89']
    assert report.result == {"products": 2, "bytes": len(text.encode())}
    assert [entry.name for entry in shop.files.iterdir()] == ["prices-2026-11-25.csv"]
