"""One JSON value read as another type, loudly: what would lose or guess anything is a `ValueError` saying why.

Invariants: null is nobody's business here; text becomes a number or a boolean only if all of it is one.
"""

import base64
import binascii
import math
from collections.abc import Callable
from typing import Final, Literal, assert_never

import orjson

Kind = Literal["string", "integer", "number", "boolean", "json", "file"]
_TRUE: Final = frozenset({"true", "1"})
_FALSE: Final = frozenset({"false", "0"})
_SHOWN: Final = 40  # characters of a value in an error
MAX_NUMBER_LENGTH: Final = 64  # characters: no number that means something is longer


def coerce(value: object, kind: Kind) -> object:
    """`value` as `kind`. Raises `ValueError`."""
    match kind:
        case "string":
            return as_text(value)
        case "integer":
            return _as_integer(value)
        case "number":
            return _as_number(value)
        case "boolean":
            return _as_boolean(value)
        case "json":
            return _as_json(value)
        case "file":
            return _as_file(value)
    assert_never(kind)


def as_text(value: object) -> str:
    """Text as it is; everything else as JSON writes it (`5`, `true`, `{"a":1}`)."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def number_in(value: object) -> int | float | None:
    """The number that `value` is, or that its whole text is; booleans are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NUMBER_LENGTH:
        return None
    return _parsed(int, value) if value.lstrip("+-").isdigit() else _finite(_parsed(float, value))


def _as_integer(value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    number = number_in(value)
    if number is None:
        raise ValueError(f"{_shown(value)} is no number")
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(f"{_shown(value)} is no whole number")
    return int(number)


def _as_number(value: object) -> int | float:
    if isinstance(value, bool):
        return int(value)
    number = number_in(value)
    if number is None:
        raise ValueError(f"{_shown(value)} is no number")
    return number


def _as_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"{_shown(value)} is neither true nor false")


def _as_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"{_shown(value)} is not JSON: {exc}") from exc


def _as_file(value: object) -> dict[str, object]:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise ValueError(f"{_shown(value)} is neither base64 nor an object with `content` in base64")
    try:
        base64.b64decode(content, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"its content is not base64: {exc}") from exc
    return value if isinstance(value, dict) else {"content": content}


def _parsed(kind: Callable[[str], int | float], text: str) -> int | float | None:
    try:
        return kind(text) if "_" not in text else None
    except ValueError:
        return None


def _finite(number: int | float | None) -> int | float | None:
    return number if number is None or math.isfinite(number) else None


def _shown(value: object) -> str:
    text = as_text(value)
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…") if isinstance(value, str) else text[:_SHOWN]
