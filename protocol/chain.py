"""The hash chains that make the event log tamper-evident.

`hash = sha256(previous hash of the instance ‖ canonical)`, canonical being the JSON array `[partition, offset, tenant,
instance, version, type, attempt, key, actor, at_us, recorded_at_us, data]` with `data` byte for byte as stored; an
instance's first event chains on 32 zero bytes. `head = sha256(previous head ‖ hash)` over every event of the
partition in offset order, so that a missing last event, or a missing instance, shows too.
"""

import hashlib
from typing import Final

import msgspec

GENESIS: Final = bytes(32)
_encode = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256

HASHED: Final = (
    "partition", "offset", "tenant", "instance", "version", "type", "attempt", "key", "actor", "at", "recorded_at",
    "data",
)  # fmt: skip
"""The columns of an event that are hashed, in order."""


def canonical(
    partition: int, offset: int, tenant: str, instance: str, version: int, type: str, attempt: int,
    key: str | None, actor: str | None, at: int, recorded_at: int, data: bytes,
) -> bytes:  # fmt: skip
    """The text of an event that is hashed, from its columns."""
    key_text = "null" if key is None else _encode(key).decode()
    actor_text = "null" if actor is None else _encode(actor).decode()
    front = (
        f'[{partition},{offset},"{tenant}","{instance}",{version},"{type}",{attempt},{key_text},{actor_text},'
        f"{at},{recorded_at},"
    )
    return b"%b%b]" % (front.encode(), data)


def event_hash(previous: bytes | None, text: bytes) -> bytes:
    """`text` is the event's `canonical`."""
    return _sha256((previous or GENESIS) + text).digest()


def next_head(head: bytes, hash: bytes) -> bytes:
    return _sha256(head + hash).digest()
