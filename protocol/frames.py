"""Frames: a JSON array of records, the unit of publishing, acknowledging and committing.

Invariants: `decode_frame` never raises; a frame that is no array of objects is one rejection; in a frame that is,
each bad record is rejected alone, and where its claim can still be read an `Unreadable` stands in its place, so
that the attempt it belongs to ends instead of going on without it.
"""

import re
from collections.abc import Iterable

import msgspec
from msgspec import Raw

from .ids import is_id, is_key
from .limits import MAX_FRAME_BYTES, MAX_FRAME_RECORDS, MAX_NESTING, MAX_REASON_LENGTH, MAX_REJECTED_BYTES
from .records import OF_NO_INSTANCE, Record, Unreadable, WireRecord


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Input that could not become a record: why, and its bytes."""

    reason: str
    payload: bytes


class _Claim(msgspec.Struct):
    instance: str
    attempt: int
    nonce: str
    seq: int


_encoder = msgspec.json.Encoder()
_frame_decoder = msgspec.json.Decoder(list[WireRecord])
_record_decoder: msgspec.json.Decoder[WireRecord] = msgspec.json.Decoder(WireRecord)
_raw_decoder = msgspec.json.Decoder(list[Raw])
_claim_decoder = msgspec.json.Decoder(_Claim)


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def join_frame(encoded: Iterable[bytes]) -> bytes:
    """A frame of records that are encoded already."""
    return b"[" + b",".join(encoded) + b"]"


def encode_frame(records: Iterable[Record]) -> bytes:
    return join_frame(map(_encoder.encode, records))


def split_frames(encoded: list[bytes]) -> int:
    """How many of the first `encoded` records fit into one frame; at least one, since a large record travels alone."""
    size = 2
    for count, record in enumerate(encoded[:MAX_FRAME_RECORDS]):
        size += len(record) + 1
        if size > MAX_FRAME_BYTES:
            return max(count, 1)
    return min(len(encoded), MAX_FRAME_RECORDS)


def decode_frame(payload: bytes) -> tuple[list[WireRecord | Unreadable], list[Rejection]]:
    """The records of a frame in order, and what was rejected."""
    try:
        payload.decode()
        if too_deep(payload):
            return [], [_rejection(f"JSON nested deeper than {MAX_NESTING}", payload)]
        records = _frame_decoder.decode(payload)
    except Exception as exc:  # whatever a decoder raises (also RecursionError, MemoryError) is the sender's fault
        return _decode_one_by_one(payload, exc)
    if all(map(is_sound, records)):
        return list(records), []
    return _decode_one_by_one(payload, None)


def _decode_one_by_one(
    payload: bytes, error: Exception | None
) -> tuple[list[WireRecord | Unreadable], list[Rejection]]:
    try:
        payload.decode()
        raws = _raw_decoder.decode(payload)
    except Exception:
        return [], [_rejection(f"not a frame: {error}", payload)]
    records: list[WireRecord | Unreadable] = []
    rejections: list[Rejection] = []
    for raw in raws:
        try:
            record = _record_decoder.decode(raw)
            if not is_sound(record):
                raise ValueError("an id, key or name has illegal characters or length")
            records.append(record)
        except Exception as exc:
            rejections.append(_rejection(str(exc), bytes(raw)))
            records.extend(_unreadable(bytes(raw), str(exc)))
    return records, rejections


def _unreadable(raw: bytes, reason: str) -> list[Unreadable]:
    try:
        claim = _claim_decoder.decode(raw)
    except Exception:
        return []
    if not is_id(claim.instance):
        return []
    return [
        Unreadable(
            instance=claim.instance, attempt=claim.attempt, nonce=claim.nonce, seq=claim.seq, reason=_clean(reason)
        )
    ]


_ID_FIELDS = ("instance", "tenant", "worker", "workflow", "kind", "child", "id", "nonce", "token", "owner", "actor")
_TEXT_FIELDS = ("reason", "message", "stderr", "description", "code_version")
_checks: dict[type[Record], tuple[tuple[str, ...], bool, tuple[str, ...]]] = {}


def is_sound(record: Record) -> bool:
    """Whether ids, keys and texts are what Postgres and the subjects can carry."""
    cls = type(record)
    checks = _checks.get(cls)
    if checks is None:
        fields = set(cls.__struct_fields__)
        checks = _checks[cls] = (
            tuple(f for f in ("instance", *_ID_FIELDS[1:]) if f in fields and not (f == "child" and "kind" in fields)),
            "key" in fields,
            tuple(f for f in _TEXT_FIELDS if f in fields),
        )
    id_fields, has_key, texts = checks
    for field in id_fields:
        value = getattr(record, field)
        if (
            value is not None
            and not is_id(value)
            and not (field == "instance" and value == "" and cls in OF_NO_INSTANCE)
        ):
            return False
    if has_key and not is_key(record.key):  # type: ignore[attr-defined]
        return False
    return all("\x00" not in (getattr(record, f) or "") for f in texts)


_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def too_deep(payload: bytes, limit: int = MAX_NESTING) -> bool:
    """Whether brackets nest deeper than the limit. Each round of replacing removes the innermost level at C speed."""
    return _deeper_than(limit, payload) and _deeper_than(limit, _STRING.sub(b"", payload))


def _deeper_than(limit: int, text: bytes) -> bool:
    brackets = text.translate(None, _NOT_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True


def _rejection(reason: str, payload: bytes) -> Rejection:
    return Rejection(reason=_clean(reason), payload=payload[:MAX_REJECTED_BYTES])


def _clean(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:MAX_REASON_LENGTH]
