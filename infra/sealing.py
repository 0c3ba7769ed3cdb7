"""Keys that seal secrets for the database, and sealing with them (XSalsa20-Poly1305, PyNaCl's SecretBox).

The keys are those of the setting `connections_key`, or the lines of a file beside the deployment's other keys: the
first one seals, every one opens. So a key is changed by putting another before it, and taking it away once nothing is
sealed with it any more.

Invariants: the file is 0600, appears whole, and two that draw it at once get the same; what was sealed for one purpose
(a tuple of names) does not open for another; no key or secret is in any text of an error or a repr.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import nacl.exceptions
import nacl.secret

from runtara.protocol.errors import InvalidSetting

from .private_files import write_private
from .settings import Settings

FILE: Final = "connections.key"
_KEY_BYTES: Final = 32
_ID_DIGITS: Final = 16  # of a hash; says which key it is and nothing about it


class SealingKey:
    """One key. `id` names it without showing it."""

    __slots__ = ("_box", "id")

    def __init__(self, raw: bytes) -> None:
        self._box = nacl.secret.SecretBox(raw)
        self.id = hashlib.sha256(b"runtara sealing key" + raw).hexdigest()[:_ID_DIGITS]

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"

    def seal(self, content: bytes, purpose: Sequence[str]) -> bytes:
        """`content`, to be opened for the same `purpose` only."""
        return bytes(self._box.encrypt(_label(purpose) + content))

    def open(self, sealed: bytes, purpose: Sequence[str]) -> bytes | None:
        """None if another key has sealed it, or it was for something else, or it was changed."""
        try:
            content = self._box.decrypt(sealed)
        except (nacl.exceptions.CryptoError, ValueError):
            return None
        label = _label(purpose)
        return content[len(label) :] if content.startswith(label) else None


class SealingKeys:
    """Where the keys come from; read anew each time, so that a file that was changed counts at once."""

    def __init__(self, *, text: str | None, file: Path | None) -> None:
        self._text = text
        self.file = None if text else file

    @classmethod
    def of(cls, settings: Settings) -> "SealingKeys":
        file = None
        if settings.nats_keys is not None:
            keys = Path(settings.nats_keys)
            file = (keys if keys.is_dir() else keys.parent) / FILE
        return cls(text=settings.connections_key, file=file)

    def read(self) -> list[SealingKey]:
        """All keys, the one that seals first; none if there is none yet. Raises `InvalidSetting`."""
        if self._text:
            return _keys(self._text, "connections_key")
        if self.file is None:
            return []
        try:
            return _keys(self.file.read_text(), str(self.file))
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidSetting(
                name="connections_key", value=str(self.file), reason=f"it cannot be read: {exc}"
            ) from exc

    def draw(self, *, another: bool = False) -> SealingKey:
        """The first key of the file, drawn if it has none; `another`: a new one that is put before those it has.

        Raises `InvalidSetting` if there is no place for it.
        """
        if self.file is None:
            reason = "draw one with `openssl rand -hex 32`" if not self._text else "it is given, so change it there"
            raise InvalidSetting(name="connections_key", value="…" if self._text else None, reason=reason)
        try:
            return _draw(self.file, another=another)
        except OSError as exc:
            reason = f"no key can be written there ({exc}); draw one with `openssl rand -hex 32` and set it"
            raise InvalidSetting(name="connections_key", value=str(self.file), reason=reason) from exc


def draw_first(folder: Path) -> None:
    """The first key of a deployment, beside its other keys, unless it is there."""
    _draw(folder / FILE, another=False)


def _draw(file: Path, *, another: bool) -> SealingKey:
    """In turns: what one process has just put into the file, another one must not write over."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        older = file.read_text() if file.exists() else ""
        if not older.strip() or another:
            write_private(file, f"{secrets.token_hex(_KEY_BYTES)}\n{older}".encode())
        return _keys(file.read_text(), str(file))[0]
    finally:
        os.close(folder)


def _keys(text: str, where: str) -> list[SealingKey]:
    keys = []
    for word in text.split():
        try:
            raw = bytes.fromhex(word)
        except ValueError:
            raw = b""
        if len(raw) != _KEY_BYTES:
            reason = f"each key in it must be {2 * _KEY_BYTES} hex digits (`openssl rand -hex {_KEY_BYTES}`)"
            raise InvalidSetting(name="connections_key", value="…", reason=f"{reason}; see {where}")
        keys.append(SealingKey(raw))
    return keys


def _label(purpose: Sequence[str]) -> bytes:
    """Length-prefixed, so that no two purposes begin alike."""
    label = msgspec.json.encode(list(purpose))
    return len(label).to_bytes(4, "big") + label
