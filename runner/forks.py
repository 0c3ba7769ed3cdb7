"""What a runner and its warm parent say to each other, over a socket: lines of JSON, and with each `Fork` a pipe.

The warm parent (`warm.py`) has imported the targets and forks; it alone knows which of its children still live, so
signals to them go through it. Invariant: descriptors arrive in the order of the lines that they belong to.
"""

import msgspec

from runtara.protocol.api import Registration


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process may use: its address space, processor time, processes of its user. None: as much as it wants."""

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    pids: int | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class Fork(_Message, frozen=True, kw_only=True, tag="fork"):
    """To the warm parent: a child for this attempt. Its output goes into the pipe that comes along."""

    id: int
    instance: str
    attempt: int
    token: str
    worker: str
    limits: Limits
    credential: str | None = None


class Signal(_Message, frozen=True, kw_only=True, tag="signal"):
    """To the warm parent: `number` to the child and all that it started, if it still lives."""

    id: int
    number: int


class Ready(_Message, frozen=True, kw_only=True, tag="ready"):
    """From the warm parent: the targets are imported."""

    registrations: list[Registration]


class NotForked(_Message, frozen=True, kw_only=True, tag="not_forked"):
    id: int
    reason: str


class Ended(_Message, frozen=True, kw_only=True, tag="ended"):
    """From the warm parent, once for each child. `code` is negative for a signal, as in `subprocess`."""

    id: int
    code: int
    memory_bytes: int
    cpu_us: int


ToWarm = Fork | Signal
FromWarm = Ready | NotForked | Ended
decode_to_warm = msgspec.json.Decoder(ToWarm).decode
decode_from_warm = msgspec.json.Decoder(FromWarm).decode


def encode_line(message: _Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"
