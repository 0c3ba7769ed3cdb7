"""An order batch, twice: by `step` (each order at least once, its result recorded once) and by `checkpoint`
(each order at most once).

    runtara dev examples/orders.py
    runtara start orders --input '{"order_ids": ["o-1", "o-2"]}' --wait
    runtara start orders-at-most-once --input '{"order_ids": ["o-1", "o-2"]}' --wait
"""

from datetime import timedelta

from runtara.sdk import Context, Retry, step, workflow


@step(key="{order_id}", retry=Retry(max_attempts=5, initial=timedelta(seconds=0.5)))
async def charge(order_id: str) -> str:
    """Moves money, so its key is written by hand, and goes to the payment provider as its idempotency key."""
    return f"receipt-{order_id}"


@step
async def ship(order_id: str, receipt: str) -> str:
    return f"parcel for {order_id} ({receipt})"


@workflow
async def orders(ctx: Context, order_ids: list[str]) -> list[str]:
    """A crash at any point goes on behind the last recorded step."""
    parcels = []
    for done, order_id in enumerate(order_ids, start=1):
        with ctx.scope(order_id):
            receipt = await charge(order_id)
            parcels.append(await ship(order_id, receipt))
        ctx.progress(done, len(order_ids))
    return parcels


@workflow(name="orders-at-most-once")
async def orders_at_most_once(ctx: Context, order_ids: list[str]) -> int:
    """The checkpoint is in the log before the work begins: work that a crash interrupted is not done again."""
    done = 0
    for order_id in order_ids:
        saved = await ctx.checkpoint(f"order-{order_id}", {"order": order_id})
        if not saved.existing:
            done += 1
            print(f"working on {order_id}")
    return done
