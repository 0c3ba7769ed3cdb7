"""One workflow, unchanged, wherever it runs: in a shared worker, a process, a container or a Kubernetes Job.

Whoever starts it does not see the difference, and code does not either: what it must remember is in the log, not where
it runs. Between the two halves of this one there is a durable sleep, which needs neither process nor container.

In a worker of the pool:

    runtara dev examples/anywhere.py

Each instance in a process of its own (`runtara dev` alone in another terminal, from here on):

    runtara runner --kind process examples/anywhere.py

Each in a container, or with `--isolation pool` many in one (`--network host`: NATS of `runtara dev` is on loopback):

    runtara image build examples/anywhere.py -t invoices:1
    runtara image register invoices invoices:1 --network host
    runtara runner --kind docker

Each as a Job, with an image that the cluster can pull: `runtara runner --kind kubernetes`, inside of it.

And always the same:

    runtara start invoice --input '{"customer": "ada", "cents": [1990, 250, 4900]}' --wait
"""

from datetime import timedelta
from hashlib import sha256

from runtara.sdk import Context, step, workflow

VAT_PERCENT = 19


@step
async def with_tax(cents: int) -> int:
    return cents + round(cents * VAT_PERCENT / 100)


@step
async def number_of(customer: str, total: int) -> str:
    return f"{customer}-{sha256(f'{customer} owes {total}'.encode()).hexdigest()[:8]}"


@workflow(linger=timedelta(0))
async def invoice(ctx: Context, customer: str, cents: list[int]) -> dict[str, object]:
    lines = [await with_tax(one) for one in cents]
    await ctx.sleep("until the books are open", timedelta(seconds=1))
    total = sum(lines)
    return {"number": await number_of(customer, total), "total": total}
