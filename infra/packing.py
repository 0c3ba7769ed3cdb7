"""How parts of blobs lie in the store: compressed, each by itself. Needs the extra `engine`; run it in a thread.

Invariant: what is unpacked is never longer than a part, whatever the bytes claim to hold.
"""

from typing import Final

import zstandard

from runtara.protocol.limits import PART_BYTES

LEVEL: Final = 1  # (m) records as JSON to a sixteenth, at 600 MB/s; level 3 is slower and no smaller


class Unpackable(ValueError):
    """Bytes that nobody has packed."""


def pack(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def unpack(data: bytes) -> bytes:
    """Raises `Unpackable`."""
    try:
        if not 0 <= zstandard.frame_content_size(data) <= PART_BYTES:
            raise Unpackable("its compressed form says that it is longer than a part can be")
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as exc:
        raise Unpackable(str(exc)) from exc
