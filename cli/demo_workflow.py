"""The demo's workflow: a batch of orders, whose process dies in the middle, by its own hand.

What each order does to the world is a line in a file, written and synced before the step returns, so that the
file can testify afterwards: how often each order was processed, in which process, and when.
"""

import os
import signal
import time
from pathlib import Path

from runtara.sdk import Context, step, workflow


@step(key="order-{order}")
async def process_order(order: int, ledger: str) -> int:
    """Charge, ship, whatever orders need: here a synced line `order pid time`."""
    handle = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{order} {os.getpid()} {time.time():.6f}\n".encode())
        os.fdatasync(handle)
    finally:
        os.close(handle)
    return order * 100


@workflow(name="order-batch")
async def order_batch(ctx: Context, orders: int, die_after: int, ledger: str) -> int:
    """The sum of all receipts. Nothing in here knows how to recover."""
    total = 0
    for order in range(1, orders + 1):
        total += await process_order(order, ledger)
        if order == die_after and not _has_died(ledger):
            os.kill(os.getpid(), signal.SIGKILL)
    return total


def _has_died(ledger: str) -> bool:
    """Whether the accident has happened before; it happens once."""
    marker = Path(f"{ledger}.died")
    if marker.exists():
        return True
    marker.touch()
    return False
