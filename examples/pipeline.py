r"""Fetch, transform, load: a supplier's price list comes by HTTP and goes, in our currency, to a shop's SFTP server.

    runtara connections set supplier --type http_bearer --field base_url=https://supplier.example --field token
    runtara connections set shop --type sftp --field host=shop.example --field username=feed \
        --field private_key=@id_ed25519 --field known_hosts=@known_hosts
    runtara dev examples/pipeline.py
    runtara start price-list --input '{"day": "2026-11-25", "rate": 1.08}' --wait

Each step is recorded once: a worker that dies while it uploads fetches nothing again. What is fetched may be far larger
than a record; values above 64 KiB are kept beside the log. The agents are the same that JSON workflows use.
"""

from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from runtara.agents import AgentError
from runtara.agents.connections import HttpBearer
from runtara.agents.connections import Sftp as SftpServer
from runtara.agents.csv import Csv, FromCsv, lines
from runtara.agents.http import Http, HttpRequest
from runtara.agents.resolve import resolve
from runtara.agents.sftp import Sftp, UploadFile
from runtara.sdk import Context, Retry, step, workflow

PATIENCE = Retry(max_attempts=5, initial=timedelta(seconds=1))
CENT = Decimal("0.01")
http, csv, sftp = Http(), Csv(), Sftp()


@step(key="fetch", retry=PATIENCE, raises=(AgentError,))
async def fetch(day: str) -> str:
    """The list as the supplier has it: sku;name;price."""
    supplier = await resolve("supplier", HttpBearer)
    answer = await http.request(HttpRequest(url=f"/prices/{day}.csv", response_type="text"), supplier)
    return str(answer.body)


@step(key="transform")
async def transform(text: str, rate: float) -> list[dict[str, str]]:
    """Our columns and our currency; what has no price is left out."""
    rows = csv.from_csv(FromCsv(data=text, delimiter="auto", trim_whitespace=True))
    return [
        {"sku": row["sku"], "title": row["name"], "price": in_our_currency(row["price"], rate)}
        for row in rows
        if isinstance(row, dict) and row["price"]
    ]


@step(key="load", retry=PATIENCE, raises=(AgentError,))
async def load(day: str, products: list[dict[str, str]]) -> int:
    """Bytes written. The file has its name only once all of it is there, so a second try does no harm."""
    shop = await resolve("shop", SftpServer)
    text = "".join(lines(products, columns=("sku", "title", "price")))
    return await sftp.upload_file(UploadFile(path=f"prices-{day}.csv", content=text), shop)


def in_our_currency(price: str, rate: float) -> str:
    return str((Decimal(price) * Decimal(str(rate))).quantize(CENT, ROUND_HALF_UP))


@workflow(name="price-list", connections=("supplier", "shop"))
async def price_list(ctx: Context, day: str, rate: float) -> dict[str, int]:
    text = await fetch(day)
    products = await transform(text, rate)
    ctx.log("prices are known", products=len(products))
    return {"products": len(products), "bytes": await load(day, products)}
