"""A command without the SDK: what `Client.start`, `pause` or `cancel` put on the wire, said by hand with nats-py.

    runtara dev examples/orders.py
    python examples/control_message.py start by-hand-1 '{"workflow": "orders", "input": {"order_ids": ["a", "b"]}}'
    python examples/control_message.py pause by-hand-1 '{"reason": "lunch"}'
    python examples/control_message.py cancel by-hand-1

Run it in the directory of that `runtara dev`. docs/protocol.md has every record and its fields.
"""

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any
from zlib import crc32

import nats
from nats.aio.client import Client


async def send(type: str, instance: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Put a command into the journal, and wait for what the engine answers once it has committed it."""
    dev = json.loads(Path(".runtara/dev.json").read_text())
    deployment, tenant, client = dev["deployment"], dev["tenant"], dev["nats_client"]
    inbox = f"_INBOX.{tenant}.{client}"  # this client's credential may hear answers there only
    connection = await nats.connect(
        dev["nats_url"], user_credentials=dev["nats_credentials"], inbox_prefix=inbox.encode()
    )
    try:
        partition = crc32(f"{tenant}/{instance}".encode()) % await partitions(connection, deployment, tenant)
        answers = await connection.subscribe(f"{inbox}.answers")
        command = {"type": type, "id": uuid.uuid4().hex, "instance": instance, "reply": f"{inbox}.answers", **fields}
        frame = json.dumps([command]).encode()
        subject = f"{deployment}.commands.{partition}.{tenant}.{client}"
        stored = await connection.jetstream().publish(subject, frame)  # it is on the disk when this returns
        print(f"{stored.stream} has it at {stored.seq}", file=sys.stderr)
        [answer] = json.loads((await answers.next_msg(timeout=10)).data)  # one for each command of a commit
        return dict(answer)
    finally:
        await connection.close()


async def partitions(connection: Client, deployment: str, tenant: str) -> int:
    """How many there are is asked, never configured: an instance's records belong into the journal of its own."""
    reply = json.loads((await connection.request(f"{deployment}.api.{tenant}.info", b"{}", timeout=5)).data)
    return int(reply["data"]["partitions"])


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: control_message.py TYPE INSTANCE [FIELDS as a JSON object]")
    answer = asyncio.run(send(sys.argv[1], sys.argv[2], json.loads(sys.argv[3] if sys.argv[3:] else "{}")))
    print(json.dumps(answer))
    sys.exit(1 if answer.get("error") else 0)
