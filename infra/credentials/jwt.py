"""The JWTs that a NATS server reads in operator mode (its format v2): written, read, verified.

Invariant: nothing that a JWT says is believed before `verified` has seen the signature of a key that we trust.
"""

import base64
import binascii
import hashlib
from collections.abc import Collection
from typing import Final, Literal

import msgspec

from .keys import Key, Role, has_signed

VERSION: Final = 2
UNLIMITED: Final = -1
_HEADER: Final = b'{"typ":"JWT","alg":"ed25519-nkey"}'


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of an account. None of ours: a server's own limits hold. With the storage limits of 0, no JetStream."""

    subs: int = UNLIMITED
    data: int = UNLIMITED
    payload: int = UNLIMITED
    imports: int = UNLIMITED
    exports: int = UNLIMITED
    wildcards: bool = True
    conn: int = UNLIMITED
    leaf: int = 0
    mem_storage: int = 0
    disk_storage: int = 0
    streams: int = 0
    consumer: int = 0


class Export(_Part, frozen=True, kw_only=True):
    name: str
    subject: str
    type: Literal["service", "stream"]
    response_type: Literal["", "Singleton", "Stream"] = ""
    response_threshold: int = 0  # ns without a response until a streamed one counts as over


class Import(_Part, frozen=True, kw_only=True):
    """`account` exports `subject`; here it has the same name."""

    name: str
    subject: str
    account: str
    type: Literal["service", "stream"]
    local_subject: str


class Subjects(_Part, frozen=True, kw_only=True):
    allow: list[str] = []
    deny: list[str] = []


class OperatorBody(_Part, frozen=True, kw_only=True, tag="operator"):
    signing_keys: list[str]
    system_account: str
    strict_signing_key_usage: bool = True
    version: int = 0


class AccountBody(_Part, frozen=True, kw_only=True, tag="account"):
    limits: Limits
    signing_keys: list[str]
    exports: list[Export] = []
    imports: list[Import] = []
    revocations: dict[str, int] = {}  # public key of a user → what was issued up to then (s) is void
    version: int = 0


class UserBody(_Part, frozen=True, kw_only=True, tag="user"):
    """`tags` say what it is to us (see `claims_of`); to the server they mean nothing."""

    issuer_account: str
    pub: Subjects = Subjects()
    sub: Subjects = Subjects()
    subs: int = 0
    data: int = 0
    payload: int = 0
    tags: list[str] = []
    version: int = 0


Body = OperatorBody | AccountBody | UserBody


class Claims(_Part, frozen=True, kw_only=True):
    """A JWT's content: issuer and subject are public keys, times are seconds since 1970."""

    iss: str
    sub: str
    iat: int
    nats: Body
    name: str = ""
    exp: int = 0
    jti: str = ""


class BadJwt(ValueError):
    """It cannot be read, or nobody whom we trust has signed it."""


def signed(key: Key, *, subject: str, name: str, body: Body, issued_at: int, expires_at: int = 0) -> str:
    """A JWT about `subject` (a public key), signed by `key`. Times in seconds; 0: it does not expire."""
    body = msgspec.structs.replace(body, version=VERSION)
    claims = Claims(iss=key.public, sub=subject, iat=issued_at, nats=body, name=name, exp=expires_at)
    digest = hashlib.sha256(msgspec.json.encode(claims)).digest()
    id = base64.b32encode(digest).decode().rstrip("=")
    payload = msgspec.json.encode(msgspec.structs.replace(claims, jti=id))
    text = f"{_text(_HEADER)}.{_text(payload)}"
    return f"{text}.{_text(key.sign(text.encode()))}"


def read(jwt: str) -> Claims:
    """What `jwt` says, true or not. Raises `BadJwt`."""
    try:
        _, payload, _ = jwt.strip().split(".")
        return msgspec.json.decode(_bytes(payload), type=Claims)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise BadJwt(f"it is no JWT: {exc}") from exc


def verified(jwt: str, issuers: Collection[str], role: Role) -> Claims:
    """What `jwt` says, if one of `issuers` (public keys for `role`) has signed it. Raises `BadJwt`."""
    claims = read(jwt)
    if claims.iss not in issuers:
        raise BadJwt("it was signed by somebody else")
    text, _, signature = jwt.strip().rpartition(".")
    try:
        is_signed = has_signed(claims.iss, role, text.encode(), _bytes(signature))
    except ValueError:
        is_signed = False
    if not is_signed or text.partition(".")[0] != _text(_HEADER):
        raise BadJwt("its signature is wrong")
    return claims


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc
