"""A step's part of its key: the key of what it records is its whole path, each step, loop index and try a part of it.

Invariants: two steps of one graph never have the same part, whatever their ids; a part is printable, not reserved, and
short enough for a dozen of them to make a key.
"""

import hashlib
from functools import lru_cache
from typing import Final

from runtara.protocol.ids import escape_key_part

MAX_PART: Final = 72  # characters: of a key's 1,024, a dozen nested loops may take as many
_HEAD: Final = 40
_CACHED: Final = 8_192


@lru_cache(maxsize=_CACHED)
def key_part(id: str) -> str:
    """`/` and `~` are escaped; one that would begin with `~` gets a `=` before it, and so does one that begins so."""
    part = escape_key_part(id)
    if len(part) > MAX_PART:
        return f"{_plain(part[:_HEAD])}~h{hashlib.sha256(id.encode()).hexdigest()[:16]}"
    return _plain(part)


def _plain(part: str) -> str:
    return f"={part}" if part[:1] in ("~", "=") else part
