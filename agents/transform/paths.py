"""Paths into JSON values: `customer.lines[0].price`, `["a.b"].c`, `[-1]`, each also with `$.` in front.

Invariants: reading never fails, what is not there is null; writing makes the objects that are missing, and fails
rather than replace a value that has no such property.
"""

import re
from typing import Final

from pydantic import JsonValue

from ..errors import AgentError

INVALID_PATH: Final = "TRANSFORM_INVALID_PATH"
NOT_SETTABLE: Final = "TRANSFORM_NOT_SETTABLE"
PARTS: Final = 100  # of a path; the platform carries no deeper values
_PART: Final = re.compile(
    r"""\[(?P<index>-?\d{1,9})\] | \["(?P<double>(?:[^"\\]|\\.)*)"\] | \['(?P<single>(?:[^'\\]|\\.)*)'\]
      | (?P<dot>\.)? (?P<name>[^.\[\]]+)""",
    re.VERBOSE,
)
_INDEX: Final = re.compile(r"-?\d{1,9}", re.ASCII)

Parts = tuple[str | int, ...]


def parts_of(path: str) -> Parts:
    """The parts of a path; none for an empty one or `$`. Raises `AgentError` TRANSFORM_INVALID_PATH."""
    at = 2 if path.startswith("$.") else 1 if path.startswith("$[") or path == "$" else 0
    parts: list[str | int] = []
    while at < len(path):
        found = _PART.match(path, at)
        if found is None or (found["name"] is not None and (found["dot"] is None) != (not parts)):
            raise AgentError(INVALID_PATH, f"{path!r} is no path: it goes wrong at {path[at:]!r}")
        parts.append(_part(found))
        at = found.end()
    if len(parts) > PARTS:
        raise AgentError(INVALID_PATH, f"a path has at most {PARTS} parts")
    return tuple(parts)


def value_at(value: JsonValue, parts: Parts) -> JsonValue:
    """What is there, or null."""
    for part in parts:
        match value:
            case dict():
                value = value.get(str(part))
            case list():
                index = _index(part)
                value = value[index] if index is not None and -len(value) <= index < len(value) else None
            case _:
                return None
    return value


def with_value(target: JsonValue, parts: Parts, new: JsonValue) -> JsonValue:
    """A copy of `target` with `new` at the path. Raises `AgentError` TRANSFORM_NOT_SETTABLE."""
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if target is None:
        target = [] if isinstance(part, int) else {}
    match target:
        case dict():
            key = str(part)
            return {**target, key: with_value(target.get(key), rest, new)}
        case list():
            index = _index(part)
            if index is None or not -len(target) <= index <= len(target):
                raise _not_settable(part, f"an array of {len(target)}")
            index += len(target) if index < 0 else 0
            old = target[index] if index < len(target) else None
            return [*target[:index], with_value(old, rest, new), *target[index + 1 :]]
        case _:
            raise _not_settable(part, "a plain value")


def _part(found: "re.Match[str]") -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    quoted = found["double"] if found["double"] is not None else found["single"]
    return found["name"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def _index(part: str | int) -> int | None:
    """A part as an index: `[0]`, or `.0` as older files write it."""
    if isinstance(part, int):
        return part
    return int(part) if _INDEX.fullmatch(part) else None


def _not_settable(part: str | int, what: str) -> AgentError:
    return AgentError(NOT_SETTABLE, f"there is nothing to set at {part!r}: it is {what}", attributes={"part": part})
