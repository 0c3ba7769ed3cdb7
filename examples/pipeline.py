"""Fetch, transform, load: the orders of a day come over HTTP as CSV, the totals of its customers go to an SFTP server.

    runtara dev examples/pipeline.py
    runtara connections set shop --type http_bearer --field base_url=https://shop.example.org/v1 --field token
    runtara connections set archive --type sftp --file archive.json
    runtara start pipeline --input '{"day": "2026-11-25"}' --wait

A shop that is busy is waited for as long as it says; an archive that is away is tried again. Whenever the worker is
killed, what was recorded is not done again, and under its final name the file is never half-written.
"""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal

from runtara.agents import AgentError
from runtara.agents.connections import HttpBearer, Sftp
from runtara.agents.csv import Csv, FromCsv, ToCsv
from runtara.agents.http import Http, HttpRequest
from runtara.agents.resolve import resolve
from runtara.agents.sftp import Sftp as SftpAgent
from runtara.agents.sftp import UploadFile
from runtara.sdk import Context, Retry, step, workflow

PATIENCE = Retry(max_attempts=8, initial=timedelta(seconds=0.5), max_delay=timedelta(minutes=5))


@step(key="{day}", retry=PATIENCE, raises=(AgentError,))
async def fetch(day: str) -> str:
    """The orders as the shop has them. The connection is opened where it is used, and recorded nowhere."""
    shop = await resolve("shop", HttpBearer)
    answered = await Http().request(HttpRequest(url=f"orders/{day}.csv", response_type="text"), shop)
    return str(answered.body)


@step(key="{path}", retry=PATIENCE, raises=(AgentError,))
async def store(path: str, text: str) -> int:
    archive = await resolve("archive", Sftp)
    return await SftpAgent().upload_file(UploadFile(path=path, content=text), archive)


@workflow(connections=("shop", "archive"))
async def pipeline(ctx: Context, day: str, folder: str = "totals") -> dict[str, int]:
    orders = await ctx.step("read", Csv().from_csv, FromCsv(data=await fetch(day)))
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for order in orders:
        totals[order["customer"]] += Decimal(order["amount"])
    rows = [{"customer": customer, "total": str(total)} for customer, total in sorted(totals.items())]
    text = await ctx.step("write", Csv().to_csv, ToCsv(value=rows))
    return {"orders": len(orders), "customers": len(rows), "bytes": await store(f"{folder}/{day}.csv", text)}
