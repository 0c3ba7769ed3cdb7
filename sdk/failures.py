"""Failures: from what user code raised to what is recorded, and back to what the workflow sees.

Invariants: a failure is described once, and what the first run raises is made from the description, so that a
resumed run raises the same; describing never fails, whatever an exception's `__str__` or attributes do.
"""

import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import orjson

from runtara.protocol.errors import RuntaraError, StepFailed, StepTimeout, WireError
from runtara.protocol.limits import MAX_REASON_LENGTH

from .memos import own_attributes
from .values import encode

TRACEBACK: Final = "traceback"
_TRACEBACK_CHARACTERS: Final = 4_000  # its tail, where the cause is
_ATTRIBUTE_BYTES: Final = 16_384  # an attribute that is larger is left out: it is no place for data
_OURS: Final = "runtara.sdk."


def describe(error: BaseException, *, code: str | None = None) -> WireError:
    """What is recorded of `error`: its type, text and attributes (or what its `to_record()` gives), and the end of its
    traceback."""
    attributes = {
        name: plain for name, value in _attributes(error).items() if (plain := _plain(value)) is not _TOO_MUCH
    }
    attributes[TRACEBACK] = _tail(error)
    return WireError(
        code=code or type(error).__name__, message=_clean(_text(error))[:MAX_REASON_LENGTH], attributes=attributes
    )


def step_error(key: str, error: WireError, attempts: int, raises: Mapping[str, type[Exception]]) -> Exception:
    """What the workflow sees of a step's failure.

    A class listed in the step's `raises` comes as itself, made by `from_record(attributes)` if it has that, else from
    the message; everything else is `StepFailed`, with the attributes of the last error as `details`.
    """
    details = {name: value for name, value in own_attributes(error.attributes).items() if name != TRACEBACK}
    cls = raises.get(error.code)
    if cls is not None and (made := _make(cls, error.message, details)) is not None:
        return made
    if error.code == StepTimeout.__name__:
        return StepTimeout(**{**details, "key": key, "attempts": attempts})
    return StepFailed(key=key, type=error.code, message=error.message, attempts=attempts, details=details)


def declared_code(error: BaseException, raises: Mapping[str, type[Exception]]) -> str | None:
    """The name of the listed class that `error` is, or that is its nearest base."""
    for cls in type(error).__mro__:
        if raises.get(cls.__name__) is cls:
            return cls.__name__
    return None


def _make(cls: type[Exception], message: str, details: dict[str, object]) -> Exception | None:
    from_record: Any = getattr(cls, "from_record", None)
    try:
        made: object = from_record(details) if from_record else cls(message)
    except Exception:  # the class has changed since; the failure itself is still known
        return None
    return made if isinstance(made, Exception) else None


_TOO_MUCH: Final = object()


def _attributes(error: BaseException) -> dict[str, object]:
    if callable(to_record := getattr(error, "to_record", None)):  # whose class has `from_record`
        return dict(to_record())
    if isinstance(error, RuntaraError):
        return dict(error.attributes)
    own = getattr(error, "attributes", None)
    if isinstance(own, Mapping):
        return {str(name): value for name, value in own.items()}
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def _plain(value: object) -> object:
    try:
        text = encode(value, key="attribute")
    except Exception:
        text = orjson.dumps(_clean(_text(value)))
    return orjson.loads(text) if len(text) <= _ATTRIBUTE_BYTES else _TOO_MUCH


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<a {type(value).__name__} that has no text>"


def _clean(text: str) -> str:
    """Text that JSON, Postgres and a terminal can carry: no NUL, no lone surrogates."""
    return text.encode(errors="replace").decode().replace("\x00", "�")


def _tail(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _from_user_code(error.__traceback__))
    except Exception:
        return ""
    return _clean("".join(lines))[-_TRACEBACK_CHARACTERS:]


def _from_user_code(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our own frames at its top."""
    while trace is not None and trace.tb_next is not None and _is_ours(trace):
        trace = trace.tb_next
    return trace


def _is_ours(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)
