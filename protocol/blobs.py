"""Values that go aside: what a record says instead of them, and the pieces in which they travel.

A value whose JSON is longer than `INLINE_BYTES` is stored once, by its content, before the record that speaks of it.
The record, and the event that follows from it, has a `Blob` beside the field that would hold the value, and that field
is null. Where a step's or a checkpoint's outcome is one JSON object, `blob` stands in it instead of `value`.

Invariants: a reference lies beside a user's value, never inside it, so no value can be taken for one; `hash` is the
SHA-256 of the JSON text, so whoever reads it knows whether it is what was recorded; all parts but the last one have
`PART_BYTES`.
"""

import hashlib
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Raw

from .errors import Malformed
from .limits import MAX_STATE_BYTES, PART_BYTES

ABSENT: Final = Raw(b"null")  # in the place of a value that went aside
_HEAD_BYTES: Final = 512  # of the line before a part's bytes
_NAMED: Final = b'"blob"'
_NAMED_BYTES: Final = 512  # a step's outcome that names a blob is shorter than this


class Blob(msgspec.Struct, gc=False, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that is stored beside the log: `hash` is the SHA-256 of its JSON in hex, `size` its length in bytes."""

    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Meta(ge=0, le=MAX_STATE_BYTES)]

    @property
    def parts(self) -> int:
        return max(1, -(-self.size // PART_BYTES))

    def part_size(self, n: int) -> int:
        """The length of part `n`, from 0."""
        return min(PART_BYTES, self.size - n * PART_BYTES)


class Carried(NamedTuple):
    """A value as a record has it: its JSON, or null and where it is."""

    text: Raw
    blob: Blob | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part `n` of `blob`, in an upload that its sender has named. The last one is sent once the others are stored."""

    blob: Blob
    upload: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,128}$")]
    n: Annotated[int, Meta(ge=0)]

    @property
    def is_last(self) -> bool:
        return self.n == self.blob.parts - 1


class PartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of which blob somebody wants."""

    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    n: Annotated[int, Meta(ge=0)] = 0


class _Outcome(msgspec.Struct):
    blob: Blob | None = None


_outcomes: Final = msgspec.json.Decoder(_Outcome)
_parts: Final = msgspec.json.Decoder(Part)
_encode: Final = msgspec.json.Encoder().encode


def blob_of(text: bytes) -> Blob:
    return Blob(hash=hashlib.sha256(text).hexdigest(), size=len(text))


def blob_in(data: bytes | Raw) -> Blob | None:
    """What the data of a step's or a checkpoint's outcome names instead of a value. On the hot path."""
    if len(data) > _NAMED_BYTES:
        return None
    text = bytes(data)
    if _NAMED not in text:
        return None
    try:
        return _outcomes.decode(text).blob
    except msgspec.MsgspecError:  # something else is called so: the log takes what is recorded as it is
        return None


def encode_part(part: Part, data: bytes | memoryview) -> bytes:
    """A message: one line that says what it is, and the bytes as they are."""
    return b"\n".join((_encode(part), data))


def decode_part(message: bytes) -> tuple[Part, bytes]:
    """Raises `Malformed`."""
    end = message.find(b"\n", 0, _HEAD_BYTES)
    try:
        part = _parts.decode(message[: max(end, 0)])
    except msgspec.MsgspecError as exc:
        raise Malformed(reason=f"not a part of a blob: {exc}") from exc
    data = message[end + 1 :]
    if part.n >= part.blob.parts or len(data) != part.blob.part_size(part.n):
        raise Malformed(reason=f"part {part.n} of a blob of {part.blob.size:,} bytes cannot have {len(data):,}")
    return part, data
