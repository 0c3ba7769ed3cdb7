"""Paths into a workflow's data, as `steps.fetch.outputs.items[0]["net price"]`: one tokenizer for checks and run time.

    path    := name part*
    part    := "." name | "[" integer "]" | "[" quoted "]"
    name    := one or more characters other than . [ ] " ' and control characters
    quoted  := "…" or '…', a backslash before a quote or a backslash of its own; opaque: dots inside separate nothing

A name of digits (`items.0`) stays text, as an object may have such a key; over an array the run time takes it as an
index.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from runtara.protocol.errors import BadInput

MAX_LENGTH: Final = 1024  # characters; a longer path is a mistake, and is refused before it costs anything
MAX_INDEX_DIGITS: Final = 9  # an array of ours never has more elements
_CACHED: Final = 4096  # documents repeat their paths
_NO_NAME: Final = frozenset(".[]\"'")


class PathError(BadInput):
    """`position` counts characters from 0."""

    template = "{text!r} is not a path, at character {position}: {reason}"
    text: str
    position: int
    reason: str

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(text=text, position=position, reason=reason)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.text, self.position, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """`root` is the first name; `parts` are keys (text) and indices (numbers), in order."""

    root: str
    parts: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return self.root + "".join(map(_written, self.parts))


@lru_cache(maxsize=_CACHED)
def parse_path(text: str) -> Path:
    """Raises `PathError`."""
    if len(text) > MAX_LENGTH:
        raise PathError(text[:40] + "…", MAX_LENGTH, f"a path has at most {MAX_LENGTH:,} characters")
    root, position = _name(text, 0)
    parts: list[str | int] = []
    while position < len(text):
        part, position = _name(text, position + 1) if text[position] == "." else _bracket(text, position)
        parts.append(part)
    return Path(root=root, parts=tuple(parts))


def parse_destination(text: str) -> tuple[str, ...]:
    """The keys of a destination (`body.customer.id`), outermost first. Raises `PathError`; it has no indices."""
    path = parse_path(text)
    if any(isinstance(part, int) for part in path.parts):
        raise PathError(text, text.index("["), "a destination has no indices; build an array with `composite`")
    return (path.root, *(str(part) for part in path.parts))


def _name(text: str, start: int) -> tuple[str, int]:
    end = start
    while end < len(text) and text[end] not in _NO_NAME:
        if not text[end].isprintable():
            raise PathError(text, end, 'control characters must be quoted: ["…"]')
        end += 1
    if end < len(text) and text[end] in "\"']":
        raise PathError(text, end, f'{text[end]} is only allowed in brackets, as in [0] or ["a key"]')
    name = text[start:end]
    if not name:
        raise PathError(text, start, "a name is missing")
    if name != name.strip():
        raise PathError(text, start, f'a name with spaces at its ends must be quoted: ["{name}"]')
    return name, end


def _bracket(text: str, start: int) -> tuple[str | int, int]:
    """What stands in the brackets that open at `start`, and where to go on."""
    if text[start] != "[":
        raise PathError(text, start, "expected . or [")
    part: str | int
    if text[start + 1 : start + 2] in ('"', "'"):
        part, end = _quoted(text, start + 1)
    else:
        end = text.find("]", start)
        part = _index(text, start + 1, len(text) if end < 0 else end)
    if text[end : end + 1] != "]":
        raise PathError(text, min(end, len(text)) if end >= 0 else len(text), "a ] is missing")
    end += 1
    if end < len(text) and text[end] not in ".[":
        raise PathError(text, end, "expected . or [ after ]")
    return part, end


def _index(text: str, start: int, end: int) -> int:
    written = text[start:end]
    digits = written.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_INDEX_DIGITS):
        raise PathError(text, start, f'brackets hold an index ([0], [-1]) or a quoted key (["{written}"])')
    return int(written)


def _quoted(text: str, start: int) -> tuple[str, int]:
    quote, position = text[start], start + 1
    found: list[str] = []
    while position < len(text):
        character = text[position]
        if character == quote:
            return "".join(found), position + 1
        if character == "\\" and text[position + 1 : position + 2] in (quote, "\\"):
            position += 1
            character = text[position]
        found.append(character)
        position += 1
    raise PathError(text, start, "the quoted key does not end")


def _written(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if part and part == part.strip() and part.isprintable() and not _NO_NAME & set(part):
        return f".{part}"
    escaped = part.replace("\\", "\\\\").replace('"', '\\"')
    return f'["{escaped}"]'
