"""Which encoding a text has: what its first bytes say, else what it is said to have.

Invariants: a byte order mark is right where it contradicts the name of another UTF, and is then no part of the text;
what does not decode is an `AgentError` that names the encoding, never a replacement character.
"""

import codecs
import io
from typing import BinaryIO, Final

from .errors import AgentError

AUTO: Final = "auto"
UNKNOWN_ENCODING: Final = "AGENT_UNKNOWN_ENCODING"
WRONG_ENCODING: Final = "AGENT_WRONG_ENCODING"
SAMPLE_BYTES: Final = 64 * 1024  # what "auto" looks at in a stream
FALLBACK: Final = "latin-1"  # of "auto": every byte is a character in it
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"})


def marked(head: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning names."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def encoding_of(label: str, head: bytes) -> str:
    """The codec for text that begins with `head` and is said to be `label`: a name, or "auto", which is UTF-8 if that
    fits and Latin-1 if not. Raises `AgentError` AGENT_UNKNOWN_ENCODING."""
    name = AUTO if label.strip().lower() == AUTO else codec_named(label)
    if name != AUTO and not name.startswith("utf"):
        return name  # in Latin-1 and its like, the bytes of a mark are letters
    return marked(head) or (_guessed(head) if name == AUTO else name)


def codec_named(label: str) -> str:
    """The codec that a label such as "UTF-8", "latin1" or "windows-1252" means."""
    try:
        name = codecs.lookup(label.strip()).name
        known = name not in _NO_CHARSETS and isinstance("".encode(name), bytes)
    except (LookupError, ValueError):
        known = False
    if not known:
        reason = f"there is no encoding {label!r}; write for example UTF-8, UTF-16, ISO-8859-1, windows-1252 or auto"
        raise AgentError(UNKNOWN_ENCODING, reason, attributes={"encoding": label})
    return name


def decoded(content: bytes, label: str) -> str:
    """The text of `content`. Raises `AgentError` AGENT_UNKNOWN_ENCODING or AGENT_WRONG_ENCODING."""
    name = encoding_of(label, content)
    try:
        return content.decode(name)
    except UnicodeError as exc:
        raise wrong_encoding(name, exc) from None


def text_of(stream: BinaryIO, label: str) -> io.TextIOWrapper:
    """A stream's text, line ends as they are. It reads ahead; `detach()` it if the stream is to live on."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(_Raw(stream), SAMPLE_BYTES)
    head = buffered.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
    return io.TextIOWrapper(buffered, encoding=encoding_of(label, head), newline="")


def wrong_encoding(name: str, error: UnicodeError) -> AgentError:
    """The error for bytes that are no text in `name`."""
    where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
    reason = f"the data is not {name}{where}; say which encoding it has, for example ISO-8859-1, or auto"
    return AgentError(WRONG_ENCODING, reason, attributes={"encoding": name})


def _guessed(head: bytes) -> str:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)  # the head may end inside a character
    except UnicodeError:
        return FALLBACK
    return "utf-8"


class _Raw(io.RawIOBase):
    """Anything with `read(n)` as a raw stream; closing it leaves the other alone."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
