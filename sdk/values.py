"""Values: from Python objects to the JSON that is recorded, and back into the annotated type.

Invariants: what cannot come back is refused before it is sent (floats that are not finite, unknown objects, text
that is no Unicode, JSON nested deeper than the wire allows, more than the limit of bytes); encoding never loses
anything silently; pydantic is recognised by its methods and never imported here.
"""

import base64
import dataclasses
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeVar, get_origin

import msgspec
import orjson

from runtara.protocol.errors import StateNotRepresentable, StateTooLarge
from runtara.protocol.frames import too_deep
from runtara.protocol.limits import MAX_NESTING, MAX_STATE_BYTES

_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS  # orjson's own way drops fields named _x
_CANONICAL: Final = _OPTIONS | orjson.OPT_SORT_KEYS
_MAX_DEPTH: Final = MAX_NESTING - 8  # frame, record and data, or the API's answers, stand around it
_PATH_SHOWN: Final = 40  # of the path of something nested too deep
_AWAITABLES: Final = (Awaitable, Coroutine)  # a function that returns one is awaited; what it gives is not annotated
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def encode(value: object, *, key: str) -> bytes:
    """The JSON of `value`, which is to be recorded under `key`.

    Raises:
        StateNotRepresentable: JSON cannot carry it; names the path inside `value`.
        StateTooLarge: more than 4 MiB.
    """
    try:
        text = orjson.dumps(value, default=to_plain, option=_OPTIONS)
    except TypeError as exc:
        path, reason = next(unrepresentable(value), ("$", str(exc)))
        raise StateNotRepresentable(key=key, path=path, reason=reason) from exc
    if b"null" in text:  # orjson writes NaN and infinity as null, so only such a text can hide one
        for path, reason in unrepresentable(value):
            raise StateNotRepresentable(key=key, path=path, reason=reason)
    if len(text) > 2 * _MAX_DEPTH and text.count(b"[") + text.count(b"{") > _MAX_DEPTH and too_deep(text, _MAX_DEPTH):
        raise StateNotRepresentable(key=key, path="$", reason=f"nested deeper than {_MAX_DEPTH} levels")
    if len(text) > MAX_STATE_BYTES:
        raise StateTooLarge(key=key, size=len(text), limit=MAX_STATE_BYTES)
    return text


def canonical(value: object, plain: Callable[[Any], object]) -> bytes:
    """JSON with sorted keys, for fingerprints: equal values give equal bytes in every process. Raises `TypeError`."""
    text = orjson.dumps(value, default=plain, option=_CANONICAL)
    if b"null" in text:
        for path, reason in unrepresentable(value, plain):
            raise TypeError(f"{path} is {reason}")
    return text


def to_plain(value: Any) -> object:
    """What orjson does not know itself, as something nearer to JSON. Raises `TypeError` for the rest."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=lambda item: orjson.dumps(item, default=to_plain, option=_CANONICAL))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, timedelta):
        return msgspec.to_builtins(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value, builtin_types=(bytes, bytearray), enc_hook=to_plain)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if is_pydantic(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def is_pydantic(kind: object) -> bool:
    """Whether `kind` is a pydantic model class, by its looks."""
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_dump")


def unrepresentable(
    value: object, plain: Callable[[Any], object] = to_plain, path: str = "$", depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Every part of `value` that JSON cannot carry, as (path, what it is)."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path, f"{value}, and JSON has no such number"
    elif depth > MAX_NESTING:
        yield f"{path[:_PATH_SHOWN]}…", f"nested deeper than {_MAX_DEPTH} levels (or contains itself)"
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!a}]"
            yield from _bad_leaf({key: None}, inner)
            yield from unrepresentable(key, plain, inner) if isinstance(key, float) else ()
            yield from unrepresentable(item, plain, inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from unrepresentable(item, plain, f"{path}[{index}]", depth + 1)
    elif value is None or isinstance(value, (str, int, Enum)):
        yield from _bad_leaf(value, path)
    else:
        yield from _foreign(value, plain, path, depth)


def _foreign(value: object, plain: Callable[[Any], object], path: str, depth: int) -> Iterator[tuple[str, str]]:
    try:
        inner = plain(value)
    except TypeError:
        yield from _bad_leaf(value, path)  # orjson knows some types of its own: dates, UUID
        return
    yield from unrepresentable(inner, plain, path, depth + 1)


def _bad_leaf(value: object, path: str) -> Iterator[tuple[str, str]]:
    try:
        orjson.dumps(value, option=_OPTIONS)
    except TypeError as exc:
        name = type(value).__name__
        yield path, f"of type {name}, which has no JSON form" if "not JSON" in str(exc) else f"a bad {name} ({exc})"


class Codec:
    """Reads recorded JSON as one annotated type; `Any` and what is no type at all give plain JSON values."""

    __slots__ = ("_decode", "_exact", "annotation")

    def __init__(self, annotation: object) -> None:
        self.annotation = annotation
        plain = annotation in (Any, object) or isinstance(annotation, TypeVar) or get_origin(annotation) in _AWAITABLES
        kind = type(None) if annotation is None else annotation
        self._exact = _SCALARS if plain else _SCALARS & {kind}
        self._decode: Callable[[bytes], object] = orjson.loads if plain else _decoder(kind)

    def decode(self, text: bytes, *, key: str) -> Any:
        """The value. Raises `StateNotRepresentable` where `text` does not fit the annotation."""
        try:
            return self._decode(text)
        except (ValueError, TypeError) as exc:
            raise StateNotRepresentable(
                key=key, path="$", reason=f"no {_name(self.annotation)} when read back: {exc}"
            ) from exc

    def as_recorded(self, value: object, text: bytes, *, key: str) -> Any:
        """What `decode(text)` gives, where `text` is the encoding of `value`."""
        return value if type(value) in self._exact else self.decode(text, key=key)


def _decoder(kind: Any) -> Callable[[bytes], object]:
    """msgspec's; for what only pydantic knows (its `JsonValue`, unions of models), pydantic's, if that is in use."""
    try:
        return msgspec.json.Decoder(kind, dec_hook=read_plain).decode
    except TypeError:
        adapter: Any = getattr(sys.modules.get("pydantic"), "TypeAdapter", None)
        if adapter is None:
            raise
        read: Callable[[bytes], object] = adapter(kind).validate_json
        return read


PLAIN: Final = Codec(Any)


def codec_like(value: object) -> Codec:
    """Reads back what looks like `value`: records of its class, else plain JSON."""
    kind: type = type(value)
    return PLAIN if kind in _SCALARS or kind in (dict, list) else _codec_of_class(kind)


@lru_cache(maxsize=1024)
def _codec_of_class(kind: type) -> Codec:
    return Codec(kind)


def read_plain(kind: type, value: object) -> object:
    """msgspec's hook for types that are not its own."""
    if is_pydantic(kind):
        return kind.model_validate(value)  # type: ignore[attr-defined]  # see is_pydantic
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    raise TypeError(f"JSON cannot be read as {_name(kind)}")


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
