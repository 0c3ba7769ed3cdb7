"""The embedded NATS server: JetStream with an fsync before every acknowledgement, on loopback, behind a password."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Final

from runtara.protocol.limits import MAX_PAYLOAD_BYTES

from . import binaries
from .identity import OURSELVES
from .installation import LOOPBACK, Installation, write_private
from .supervisor import ServerSpec

FOLDER: Final = "nats"
STOP_SIGNAL: Final = signal.SIGTERM
_PROBE_SECONDS: Final = 1.0


def prepare(data: Path, installation: Installation) -> ServerSpec:
    """Write the server's configuration and say how to run it."""
    folder = data / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    configuration = folder / "nats.conf"
    write_private(configuration, configure(installation, store=folder / "store").encode())

    async def is_ready() -> bool:
        return await _answers(installation)

    return ServerSpec(
        name="NATS",
        command=[binaries.nats_server(), "--config", configuration],
        folder=folder,
        identity=OURSELVES,
        stop_signal=STOP_SIGNAL,
        is_ready=is_ready,
    )


def configure(installation: Installation, *, store: Path) -> str:
    """The text of `nats.conf`."""
    return f"""\
# written by runtara at every start
server_name: {installation.nats_name}
listen: {json.dumps(f"{LOOPBACK}:{installation.nats_port}")}
max_payload: {MAX_PAYLOAD_BYTES}
authorization {{
  user: {json.dumps(installation.nats_user)}
  password: {json.dumps(installation.nats_password)}
}}
jetstream {{
  store_dir: {json.dumps(str(store))}
  sync_interval: always  # an acknowledged record is on the disk
}}
"""


async def _answers(installation: Installation) -> bool:
    """Whether *our* server greets us: the port could have been taken by another."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, installation.nats_port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return greeting.startswith(b"INFO ") and installation.nats_name.encode() in greeting
