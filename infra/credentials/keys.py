"""Key pairs (Ed25519) in the text form of NATS nkeys: new ones, and those derived from a deployment's secret.

Invariant: a derived key depends on the secret and on length-prefixed parts, so no two names give the same key.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from enum import IntEnum
from typing import Final

import nacl.exceptions
import nacl.signing
import nkeys

from runtara.protocol.errors import InvalidSetting

_RAW_BYTES: Final = 32
_PREFIX_BYTES: Final = 1
_CHECKSUM_BYTES: Final = 2


class Role(IntEnum):
    """What a key is for; it is the first letter of its text: O, A or U."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class Key:
    """A key pair. Its text never shows the private half."""

    __slots__ = ("_pair", "public")

    def __init__(self, seed: bytes) -> None:
        self._pair = nkeys.from_seed(bytearray(seed))
        self.public: str = bytes(self._pair.public_key).decode()

    def __repr__(self) -> str:
        return f"Key({self.public})"

    @classmethod
    def new(cls, role: Role) -> "Key":
        return cls._of(role, secrets.token_bytes(_RAW_BYTES))

    @classmethod
    def derived(cls, role: Role, secret: bytes, *parts: str) -> "Key":
        """The same for the same secret and parts."""
        data = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in (role.name, *parts))
        return cls._of(role, hmac.digest(secret, data, hashlib.sha256))

    @classmethod
    def read(cls, seed: str, *, what: str) -> "Key":
        """A key from its seed's text; `InvalidSetting` names `what` held it."""
        try:
            return cls(seed.strip().encode())
        except (nkeys.NkeysError, ValueError, binascii.Error) as exc:
            raise InvalidSetting(name=what, value="…", reason="its seed is not an nkey") from exc

    @classmethod
    def _of(cls, role: Role, raw: bytes) -> "Key":
        return cls(bytes(nkeys.encode_seed(raw, role)))

    @property
    def seed(self) -> str:
        """The private half, as text."""
        return bytes(self._pair.seed).decode()

    def sign(self, data: bytes) -> bytes:
        return bytes(self._pair.sign(data))


def is_public(text: str, role: Role) -> bool:
    """Whether `text` is the public half of a key for `role`."""
    return _raw(text, role) is not None


def has_signed(public: str, role: Role, data: bytes, signature: bytes) -> bool:
    """Whether the key with this public half has signed `data`."""
    raw = _raw(public, role)
    if raw is None:
        return False
    try:
        nacl.signing.VerifyKey(raw).verify(data, signature)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError, ValueError):
        return False
    return True


def _raw(public: str, role: Role) -> bytes | None:
    try:
        decoded = base64.b32decode(public + "=" * (-len(public) % 8))
    except (binascii.Error, ValueError):
        return None
    if len(decoded) != _PREFIX_BYTES + _RAW_BYTES + _CHECKSUM_BYTES or decoded[0] != role:
        return None
    body, checksum = decoded[:-_CHECKSUM_BYTES], decoded[-_CHECKSUM_BYTES:]
    return body[_PREFIX_BYTES:] if checksum == nkeys.crc16(bytearray(body)).to_bytes(2, "little") else None
