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


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What is hashed of an event, besides the previous hash."""

    partition: int
    offset: int
    tenant: str
    instance: str
    version: int
    type: str
    attempt: int
    key: str | None
    actor: str | None
    at: int
    recorded_at: int
    data: bytes


def canonical(link: Link) -> bytes:
    key = b"null" if link.key is None else _encode(link.key)
    actor = b"null" if link.actor is None else _encode(link.actor)
    return (
        f'[{link.partition},{link.offset},"{link.tenant}","{link.instance}",{link.version},"{link.type}",'
        f"{link.attempt},".encode()
        + key
        + b","
        + actor
        + f",{link.at},{link.recorded_at},".encode()
        + link.data
        + b"]"
    )


def event_hash(previous: bytes | None, link: Link) -> bytes:
    return hashlib.sha256((previous or GENESIS) + canonical(link)).digest()


def next_head(head: bytes, hash: bytes) -> bytes:
    return hashlib.sha256(head + hash).digest()
