"""A plain script that is durable: kill it, run it again, and it goes on where it was.

Start `runtara dev` in this directory, then run `python script.py` as often as you like.
"""

import asyncio

from runtara.sdk import Instance

ORDERS = 5


async def main() -> None:
    async with Instance.local("order-batch-001") as instance:
        await instance.register({"orders": ORDERS})
        for order in range(ORDERS):
            checkpoint = await instance.checkpoint(f"order-{order}", {"order": order})
            if not checkpoint.existing:
                print(f"processing order {order}", flush=True)
        await instance.completed({"processed": ORDERS})


if __name__ == "__main__":
    asyncio.run(main())
