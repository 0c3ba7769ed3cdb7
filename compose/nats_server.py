"""The embedded NATS server: JetStream with an fsync before every acknowledgement, on loopback, in operator mode.

A stream whose file could not be written (a full disk, m: nats-server 2.15.1) keeps what it has, takes nothing more and
does not answer publishers, until the server is restarted; the server's health, which only its system account may ask
for, says so. Its storage limit is set, because by default it is three quarters of what was free at its start: a server
that starts while the disk is full would refuse everything until its next start.
"""

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Final

import msgspec

from runtara.infra.bus import Bus
from runtara.infra.credentials.key_file import KeyFile
from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.credentials.kinds import platform_inbox
from runtara.infra.login import MintedLogin
from runtara.infra.private_files import write_private
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import RuntaraError
from runtara.protocol.limits import MAX_PAYLOAD_BYTES

from . import binaries
from .identity import OURSELVES
from .installation import LOOPBACK, Installation
from .supervisor import ServerSpec

FOLDER: Final = "nats"
KEYS_FOLDER: Final = "keys"  # beside the server's own: it needs none of them
STOP_SIGNAL: Final = signal.SIGTERM
_PROBE_SECONDS: Final = 1.0
_SUPERVISOR: Final = "supervisor"
_HEALTH: Final = "$SYS.REQ.SERVER.PING.HEALTHZ"
_NEEDS_A_RESTART: Final = re.compile(r"write error")


class Health(msgspec.Struct, frozen=True):
    error: str = ""


class HealthReply(msgspec.Struct, frozen=True):
    data: Health = Health()


def keys_folder(data: Path) -> Path:
    return data / KEYS_FOLDER


def prepare(data: Path, installation: Installation) -> ServerSpec:
    """Write the server's configuration, with keys drawn now if there are none, and say how to run it."""
    folder = data / FOLDER
    for made in (folder, keys_folder(data)):
        made.mkdir(mode=0o700, exist_ok=True)
    ring = KeyRing.load_or_create(keys_folder(data))
    keys = KeyFile(keys_folder(data))
    configuration = folder / "nats.conf"
    write_private(configuration, configure(installation, ring, folder=folder).encode())

    async def is_ready() -> bool:
        return await _answers(installation)

    async def ails() -> str | None:
        return await _write_error(installation, keys)

    return ServerSpec(
        name="NATS",
        command=[binaries.nats_server(), "--config", configuration],
        folder=folder,
        identity=OURSELVES,
        stop_signal=STOP_SIGNAL,
        is_ready=is_ready,
        ails=ails,
    )


def configure(installation: Installation, ring: KeyRing, *, folder: Path) -> str:
    """The text of `nats.conf`."""
    return f"""\
# written by runtara at every start
server_name: {installation.nats_name}
listen: {json.dumps(f"{LOOPBACK}:{installation.nats_port}")}
max_payload: {MAX_PAYLOAD_BYTES}
{ring.configuration(folder / "accounts")}
jetstream {{
  store_dir: {json.dumps(str(folder / "store"))}
  sync_interval: always  # an acknowledged record is on the disk
  max_file_store: 1PB  # the disk is the limit; streams have their own
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


async def _write_error(installation: Installation, keys: KeyFile) -> str | None:
    """What keeps a stream from being written until the server is restarted, in the server's words."""
    try:
        bus = await Bus.connect(
            installation.nats_url, name="runtara supervisor", inbox=platform_inbox(Kind.SYSTEM, _SUPERVISOR),
            login=MintedLogin(lambda: keys.ring.mint(Kind.SYSTEM, "system", _SUPERVISOR)),
        )  # fmt: skip
        async with bus:
            answer = await bus.request(_HEALTH, b"", timeout=_PROBE_SECONDS)
        error = msgspec.json.decode(answer, type=HealthReply).data.error
    except (RuntaraError, msgspec.MsgspecError):
        return None  # it is on its way up or down
    return error if _NEEDS_A_RESTART.search(error) else None
