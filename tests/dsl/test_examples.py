"""Every workflow of `examples/json/` does what it says, against a real HTTP server and a real OpenSSH server."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtara.dsl.load import load_file
from runtara.sdk import ConnectionValue, WorkflowFailed
from runtara.sdk.client import Handle
from runtara.sdk.testing import MemoryPlatform
from tests.support.http_server import Handler, HttpServer, answer, http_server
from tests.support.sshd import Sshd, sshd

FOLDER = Path(__file__).parents[2] / "examples" / "json"
LINES = [{"sku": "A-1", "quantity": 2}, {"sku": "B-7", "quantity": 1}]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="sshd-"))
    folder.chmod(0o755)
    with sshd(folder / "server") as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpServer]:
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    async with http_server() as made:
        yield made


def says(value: object, status: int = 200) -> Handler:
    return replies(lambda body: (value, status))


def replies(reply: Callable[[Any], tuple[object, int]]) -> Handler:
    """A handler that makes its JSON answer and its status from the JSON that was sent."""

    async def handle(request: Any, writer: object) -> bytes:
        value, status = reply(json.loads(request.body) if request.body else None)
        return answer(status, json.dumps(value).encode(), Content_Type="application/json")

    return handle


def file_of(server: Sshd, name: str) -> Path:
    """A file of the server's user, whose folder is there and is the user's as well."""
    path = server.files / name
    if not path.parent.exists():
        path.parent.mkdir()
        shutil.chown(path.parent, server.files.stat().st_uid, server.files.stat().st_gid)
    return path


@asynccontextmanager
async def started(
    name: str, data: object, *, shop: HttpServer | None = None, warehouse: Sshd | None = None,
    hosts: tuple[str, ...] = (),
) -> AsyncIterator[tuple[MemoryPlatform, Handle[Any]]]:  # fmt: skip
    connections = []
    if shop is not None:
        fields = {"token": "secret-of-the-shop", "base_url": shop.url}
        connections.append(ConnectionValue("shop", "http_bearer", fields))
    if warehouse is not None:
        login = {"host": "127.0.0.1", "port": warehouse.port, "username": warehouse.user}
        login |= {"private_key": warehouse.key(), "known_hosts": warehouse.known_hosts}
        connections.append(ConnectionValue("warehouse", "sftp", login))
    others = [load_file(FOLDER / f"{other}.json") for other in hosts]
    async with MemoryPlatform(*others, connections=connections) as platform:
        yield platform, await platform.start(load_file(FOLDER / f"{name}.json"), data, id="one")


async def result_of(name: str, data: object, **more: Any) -> Any:
    async with started(name, data, **more) as (_, handle):
        return await handle.result()


ORDER = {"order_id": "o-1", "customer": "ada", "lines": LINES, "total": 1_500}


def shop_takes_orders(shop: HttpServer, *, charges: int = 200) -> None:
    shop.routes |= {
        "/reservations": says({"ok": True}),
        "/charges": says({"id": "ch-9"} if charges == 200 else {"why": "declined"}, charges),
        "/reservations/o-1": says({"ok": True}),
    }


async def test_a_large_order_is_approved_charged_and_handed_over(shop: HttpServer, warehouse: Sshd) -> None:
    shop_takes_orders(shop)
    picking = file_of(warehouse, "picking/o-1.csv")
    async with started("order", ORDER, shop=shop, warehouse=warehouse) as (platform, handle):
        await platform.settle()
        assert [request.path for request in shop.seen] == ["/reservations"]
        await handle.signal("approval", {"approved": True, "by": "grace"})
        assert await handle.result() == {"status": "handed over", "order_id": "o-1", "charge": "ch-9"}
        assert "secret-of-the-shop" not in str([bytes(event.data) for event in platform.log("one")])
    assert picking.read_text().splitlines() == ["sku,quantity", "A-1,2", "B-7,1"]
    assert {request.headers["authorization"] for request in shop.seen} == {"Bearer secret-of-the-shop"}


@pytest.mark.parametrize("total", [10, 1_500])
async def test_an_order_that_is_not_charged_gives_its_stock_back(shop: HttpServer, warehouse: Sshd, total: int) -> None:
    shop_takes_orders(shop, charges=402)
    async with started("order", ORDER | {"total": total}, shop=shop, warehouse=warehouse) as (_, handle):
        if total > 1_000:
            await handle.signal("approval", {"approved": True})
        assert await handle.result() == {"status": "not shipped", "order_id": "o-1"}
    assert [(request.method, request.path) for request in shop.seen][-1] == ("DELETE", "/reservations/o-1")


async def test_an_order_that_nobody_approves_is_given_up_after_a_week(shop: HttpServer, warehouse: Sshd) -> None:
    shop_takes_orders(shop)
    async with started("order", ORDER, shop=shop, warehouse=warehouse) as (platform, handle):
        began = platform.now
        assert (await handle.result())["status"] == "not shipped"
        assert platform.now - began >= timedelta(days=7)


async def test_rows_that_are_refused_are_counted(shop: HttpServer) -> None:
    text = b"name,mail\nAda , ada@example.org\nNobody,\nGrace,grace@example.org\n"

    async def file(request: object, writer: object) -> bytes:
        return answer(200, text, Content_Type="text/csv")

    shop.routes["/customers.csv"] = file
    shop.routes["/customers"] = replies(
        lambda row: ({"id": row["name"].lower()}, 201) if row["mail"] else ({"why": "no address"}, 422)
    )
    result = await result_of("csv_import", {"file": "/customers.csv"}, shop=shop)
    assert sorted(row["id"] for row in result["imported"]) == ["ada", "grace"]
    assert (result["stats"]["success"], result["stats"]["error"]) == (2, 1)


@pytest.mark.parametrize(
    ("reply", "decision"),
    [({"approved": True, "comment": "fine"}, "approved"), ({"approved": False}, "rejected"), (None, "rejected")],
)
async def test_an_approval_is_what_was_answered_or_a_no(shop: HttpServer, reply: object, decision: str) -> None:
    shop.routes["/questions"] = says({})
    async with started("approval", {"title": "a desk", "amount": 300}, shop=shop) as (platform, handle):
        await platform.settle()
        asked = json.loads(shop.seen[0].body)
        assert (asked["title"], asked["answer_to"]) == ("a desk", "one")
        if reply is not None:
            await handle.signal(asked["signal"], reply)
        result = await handle.result()
    assert result["decision"] == decision
    assert len(shop.seen) == 1


async def test_errors_are_handled_by_their_kind(shop: HttpServer) -> None:
    shop.routes |= {"/fine": says({"n": 1}), "/busy": says({}, 503)}
    assert await result_of("error_handling", {"path": "/fine"}, shop=shop) == {"outcome": "ok", "body": {"n": 1}}
    assert (await result_of("error_handling", {"path": "/busy"}, shop=shop))["outcome"] == "try later"
    assert [request.path for request in shop.seen].count("/busy") == 3
    with pytest.raises(WorkflowFailed, match="CALL_REFUSED"):
        await result_of("error_handling", {"path": "/gone"}, shop=shop)


async def test_each_order_gets_an_invoice_of_its_own() -> None:
    orders = [{"number": n, "customer": f"customer {n}", "amount": n * 10} for n in range(1, 6)]
    async with started("invoices", {"orders": orders}, hosts=("invoice",)) as (platform, handle):
        result = await handle.result()
        assert len([event for event in platform.log(handle.id) if event.type == "ChildCompleted"]) == 5
    assert [invoice["number"] for invoice in result["invoices"]] == [1, 2, 3, 4, 5]
    assert len({invoice["sha256"] for invoice in result["invoices"]}) == 5


async def test_a_job_is_looked_at_until_it_is_done(shop: HttpServer) -> None:
    async def job(request: object, writer: object) -> bytes:
        status = {"status": "done", "result": 42} if len(shop.seen) == 3 else {"status": "running"}
        return answer(200, json.dumps(status).encode())

    shop.routes["/jobs/j-1"] = job
    async with started("polling", {"job": "j-1", "every_ms": 60_000}, shop=shop) as (platform, handle):
        began = platform.now
        assert await handle.result() == {"looks": 3, "result": 42}
        assert platform.now - began >= timedelta(minutes=3)


async def test_what_was_asked_at_once_is_put_together(shop: HttpServer) -> None:
    shop.routes |= {
        "/profiles/ada": says({"name": "Ada"}),
        "/orders/ada": says({"orders": 3}),
        "/credit/ada": says({"limit": 900}),
    }
    result = await result_of("parallel", {"customer": "ada"}, shop=shop)
    assert result == {"customer": {"name": "Ada", "orders": 3, "limit": 900}}


async def test_a_report_counts_what_is_open() -> None:
    tickets = [{"team": "billing", "status": "open"}, {"team": "billing", "status": "closed"}, {"status": "open"}]
    result = await result_of("report", {"tickets": tickets})
    assert result == {"open": 1, "counts": {"billing": 1, "support": 0}, "text": "1 open tickets in 2 teams"}


async def test_ten_megabytes_of_tickets_are_no_other_matter() -> None:
    text = "the printer is on fire again " * 4
    tickets = [{"team": f"team {n % 7}", "status": "open", "n": n, "text": text} for n in range(60_000)]
    assert len(json.dumps(tickets)) > 10_000_000
    async with started("report", {"tickets": tickets}) as (platform, handle):
        result = await handle.result()
        (created,) = [event for event in platform.log("one") if event.type == "InstanceCreated"]
    assert (result["open"], result["counts"]["team 6"]) == (60_000, 8_571)
    assert len(created.data) < 10_000  # it went aside


@pytest.mark.parametrize(("weight", "by", "price"), [(0.3, "letter", 4), (2, "parcel", 9), (31, "freight", 60)])
async def test_a_parcel_goes_by_its_weight(weight: float, by: str, price: int) -> None:
    assert await result_of("routing", {"weight_kg": weight}) == {"by": by, "price": price}


async def test_a_feed_gets_our_names(warehouse: Sshd) -> None:
    item = "<item><code>{}</code><name>{}</name><cost currency='EUR'><amount>{}</amount></cost></item>"
    feed = f"<feed>{item.format('A-1', 'Desk', 300)}{item.format('B-7', 'Stuhl', 80)}</feed>"
    file_of(warehouse, "feeds/today.xml").write_text(feed)
    result = await result_of("xml_feed", {"path": "feeds/today.xml"}, warehouse=warehouse)
    products = [item["product"] for item in result["products"]]
    assert products == [
        {"sku": "A-1", "title": "Desk", "price": "300"},
        {"sku": "B-7", "title": "Stuhl", "price": "80"},
    ]


async def test_reminders_come_after_days(shop: HttpServer) -> None:
    shop.routes["/mails"] = says({})
    async with started("reminder", {"customer": "ada"}, shop=shop) as (platform, handle):
        began = platform.now
        assert await handle.result() == {"reminders": 2}
        assert platform.now - began >= timedelta(days=10)
    assert [json.loads(request.body)["text"] for request in shop.seen] == ["a friendly reminder", "the last reminder"]


async def test_a_folder_becomes_an_archive(warehouse: Sshd) -> None:
    for name in ("a.txt", "b.txt"):
        file_of(warehouse, f"papers/{name}").write_text(f"this is {name}")
    result = await result_of("bundle", {"folder": "papers", "archive": "papers.zip"}, warehouse=warehouse)
    with zipfile.ZipFile(warehouse.files / "papers.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.txt": b"this is a.txt", "b.txt": b"this is b.txt",
        }  # fmt: skip
    assert result == {"files": 2, "bytes": (warehouse.files / "papers.zip").stat().st_size}


def test_each_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert [path.stem for path in FOLDER.glob("*.json") if f'"{path.stem}"' not in text] == []
