"""The output of a child process: always read, since a full pipe would block it; passed on, and the end of it kept."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Final

from runtara.protocol.limits import MAX_REASON_LENGTH

TAIL_BYTES: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024
CLEAN: Final = str.maketrans({"\x00": "\N{REPLACEMENT CHARACTER}"})


class Tail:
    """`forward` gets everything as it comes."""

    def __init__(self, forward: Callable[[bytes], None]) -> None:
        self._forward = forward
        self._kept = bytearray()

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Until the end of `stream`."""
        while data := await stream.read(READ_BYTES):
            self._forward(data)
            self._kept += data
            del self._kept[:-TAIL_BYTES]

    def text(self) -> str:
        """The last words, as the log can keep them."""
        return as_last_words(bytes(self._kept))


def as_last_words(output: bytes) -> str:
    return output.decode(errors="replace").translate(CLEAN)[-MAX_REASON_LENGTH:]


def to_stderr(data: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
