"""A user's credential and the file that holds it: the `.creds` format that every NATS client reads.

Invariant: a file is written whole and readable by its owner only.
"""

import base64
import re
import time
from pathlib import Path
from typing import Final

import msgspec

from runtara.protocol.errors import InvalidSetting

from ..private_files import write_private
from .jwt import BadJwt, read
from .keys import Key
from .kinds import Holder, holder_of

BEGIN: Final = "-----BEGIN"
_BLOCK: Final = re.compile(r"-----BEGIN [A-Z ]+-+\r?\n([\s\S]+?)\r?\n-+END [A-Z ]+-+")
_TEXT: Final = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
The lines below are a private key. Whoever has it can act as its owner.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""
_SETTING: Final = "nats_credentials"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A JWT and the key it is about. `holder` is None if it is none of ours; `expires_at` (s) is 0 if it does not."""

    jwt: str
    key: Key
    holder: Holder | None
    issued_at: int
    expires_at: int

    @classmethod
    def of(cls, jwt: str, key: Key) -> "Credential":
        """Raises `InvalidSetting` if the JWT cannot be read, or is about another key."""
        try:
            claims = read(jwt)
        except BadJwt as exc:
            raise InvalidSetting(name=_SETTING, value="…", reason=str(exc)) from exc
        if claims.sub != key.public:
            raise InvalidSetting(name=_SETTING, value="…", reason="its JWT is about another key")
        return cls(
            jwt=jwt.strip(), key=key, holder=holder_of(claims.nats), issued_at=claims.iat, expires_at=claims.exp
        )  # fmt: skip

    @property
    def public_key(self) -> str:
        return self.key.public

    @property
    def text(self) -> str:
        """What its file holds. A secret."""
        return _TEXT.format(jwt=self.jwt, seed=self.key.seed)

    def write(self, path: Path) -> None:
        """Into a file that its owner only can read. Raises `OSError`."""
        write_private(path, self.text.encode())

    @property
    def half_life_at(self) -> float:
        """When it should be renewed, in seconds since 1970."""
        return (self.issued_at + self.expires_at) / 2

    def is_expired(self) -> bool:
        return bool(self.expires_at) and time.time() >= self.expires_at

    def sign_nonce(self, nonce: str) -> bytes:
        return base64.b64encode(self.key.sign(nonce.encode()))


def parse(text: str) -> Credential:
    blocks = _BLOCK.findall(text)
    if len(blocks) < 2:
        raise InvalidSetting(name=_SETTING, value="…", reason="it does not hold a JWT and a seed")
    return Credential.of(blocks[0].strip(), Key.read(blocks[1], what=_SETTING))


def load(source: str) -> Credential:
    """A credential from its text, or from the file of that name. Raises `InvalidSetting`."""
    if source.lstrip().startswith(BEGIN):
        return parse(source)
    try:
        return parse(Path(source).read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSetting(name=_SETTING, value=source, reason=f"it cannot be read: {exc}") from exc
