"""Names: what a legal id or key is, which partition an instance belongs to, and names derived from ids.

An id becomes a token of a NATS subject, so `.`, `*`, `>` and spaces in it would be an injection;
every boundary calls `check_id`.
"""

import base64
import hashlib
import re
import secrets
import zlib
from typing import Final

from .errors import InvalidId, InvalidKey
from .limits import MAX_ID_LENGTH, MAX_KEY_LENGTH

DEFAULT_TENANT: Final = "default"
FAILED_KEY: Final = "~failed"  # why an instance fails, recorded before it is undone: from then on nothing else can come
TIMEOUT_KEY: Final = "~timeout"  # the sleep that ends with the time that a workflow may take
UNDO_PREFIX: Final = "~undo/"  # of the keys under which compensations record that they ran
_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}")
_POOLED: Final = "p"  # begins the worker id of a container that hosts one workflow
_POOLED_WORKER: Final = re.compile(rf"{_POOLED}-[0-9a-f]{{32}}-[a-z2-7]{{26}}")
_PARENT_PART: Final = 100  # a child's id keeps this much of its parent's, for people


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_id(value: object, kind: str = "id") -> str:
    """Return `value` if it is a legal id, else raise `InvalidId` naming the `kind` of id."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise InvalidId(kind=kind, value=_short(value))
    return value


def is_key(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_KEY_LENGTH and value.isprintable()


def check_key(value: object) -> str:
    """Return `value` if it is a legal key (1 to 1,024 printable characters), else raise `InvalidKey`."""
    if not isinstance(value, str) or not is_key(value):
        raise InvalidKey(key=_short(value))
    return value


def escape_key_part(part: str) -> str:
    """One part of a key path, with the separator `/` and `~` escaped as in RFC 6901."""
    return part.replace("~", "~0").replace("/", "~1")


def partition_of(tenant: str, instance: str, partitions: int) -> int:
    return zlib.crc32(f"{tenant}/{instance}".encode()) % partitions


def derived_name(prefix: str, *parts: str) -> str:
    """`<prefix>-<32 hex>` over length-prefixed parts: joined ids would collide (`a_b`+`c`, `a`+`b_c`)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return f"{prefix}-{digest.hexdigest()[:32]}"


def child_id(parent: str, key: str) -> str:
    """The id of the child that `parent` starts under `key`; derived, so a repeated request meets the same one."""
    digest = hashlib.sha256(f"{parent}/{key}".encode()).hexdigest()[:16]
    return f"{parent[:_PARENT_PART]}-{digest}"


def new_token(length: int = 26) -> str:
    """A random id part of `length` characters of a-z2-7, 5 bits each."""
    return base64.b32encode(secrets.token_bytes(length * 5 // 8 + 1)).decode().lower()[:length]


def pooled_worker(workflow: str) -> str:
    """A new id for a worker that may host nothing but `workflow`, which the id says: a credential is for its id."""
    return f"{derived_name(_POOLED, workflow)}-{new_token()}"


def may_host(worker: str, workflow: str) -> bool:
    """Whether `worker`'s id allows it to claim instances of `workflow`; only a pooled container's forbids anything."""
    return _POOLED_WORKER.fullmatch(worker) is None or worker.startswith(f"{derived_name(_POOLED, workflow)}-")


def new_nonce() -> str:
    """128 random bits in hex: half of a claim. Drawn by the claiming process, kept in its memory only."""
    return secrets.token_hex(16)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
