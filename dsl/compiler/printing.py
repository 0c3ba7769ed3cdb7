"""Python expressions, laid out as a formatter would: on one line if it fits, else one part a line.

Invariants: what is printed is read back by Python as the same value; no line is longer than it must be; the same
expression always looks the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH: Final = 120
INDENT: Final = 4
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_PIECES: Final = re.compile(r"\S*\s*")
_LEAST_PIECE: Final = 20  # characters of a long text's piece, however deep it stands


@dataclass(frozen=True, slots=True)
class Raw:
    """Code as it is, without line breaks."""

    code: str


@dataclass(frozen=True, slots=True)
class Text:
    value: str


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    args: Sequence["Node"] = ()
    kwargs: Mapping[str, "Node"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Array:
    items: Sequence["Node"]
    brackets: str = "[]"


@dataclass(frozen=True, slots=True)
class Table:
    """A dict; its keys are texts."""

    items: Mapping[str, "Node"]


Node = Raw | Text | Call | Array | Table


def literal(value: object) -> Node:
    """JSON as Python."""
    match value:
        case str():
            return Text(value)
        case Mapping():
            return Table({str(name): literal(item) for name, item in value.items()})
        case list() | tuple():
            return Array([literal(item) for item in value])
        case _:
            return Raw(repr(value))


def texts(values: Sequence[str]) -> Array:
    """A tuple of texts."""
    return Array([Text(value) for value in values], "()")


def printed(node: Node, *, indent: int = 0, before: str = "", after: str = "") -> list[str]:
    """The lines of `before` + node + `after`, the first indented by `indent` spaces, too."""
    one = " " * indent + before + _flat(node) + after
    if len(one) <= WIDTH and "\n" not in one:
        return [one]
    first = " " * indent + before
    match node:
        case Text():
            return _long_text(node.value, indent, before, after)
        case Call(args=[Text() as only], kwargs={}) if len(pieces := _pieces(only.value, _room(indent))) > 1:
            inner = " " * (indent + INDENT)
            lines = [inner + quoted(piece) for piece in pieces]
            return [f"{first}{node.function}(", *lines, " " * indent + ")" + after]
        case Call() if node.args or node.kwargs:
            parts = [("", arg) for arg in node.args] + [(f"{name}=", value) for name, value in node.kwargs.items()]
            return _exploded(f"{first}{node.function}(", parts, f"){after}", indent)
        case Array() if node.items:
            parts = [("", item) for item in node.items]
            return _exploded(first + node.brackets[0], parts, node.brackets[1] + after, indent)
        case Table() if node.items:
            parts = [(f"{quoted(name)}: ", item) for name, item in node.items.items()]
            return _exploded(f"{first}{{", parts, f"}}{after}", indent)
        case _:
            return [one]


def _exploded(opening: str, parts: Sequence[tuple[str, Node]], closing: str, indent: int) -> list[str]:
    lines = [opening]
    for before, part in parts:
        lines += printed(part, indent=indent + INDENT, before=before, after=",")
    return [*lines, " " * indent + closing]


def _long_text(value: str, indent: int, before: str, after: str) -> list[str]:
    """In pieces that Python joins, each ending at a space or line break where there is one."""
    pieces = [quoted(piece) for piece in _pieces(value, _room(indent))]
    if len(pieces) == 1:
        return [" " * indent + before + pieces[0] + after]
    inner = " " * (indent + INDENT)
    return [" " * indent + before + "(", *(inner + piece for piece in pieces), " " * indent + ")" + after]


def _room(indent: int) -> int:
    """For a piece of a text that stands within brackets at `indent`."""
    return max(_LEAST_PIECE, WIDTH - indent - INDENT - 3)


def _pieces(value: str, room: int) -> list[str]:
    found, current = [], ""
    for word in _PIECES.findall(value):
        while word:
            if len(quoted(current + word)) - 2 <= room:
                current, word = current + word, ""
            elif current:
                found.append(current)
                current = ""
            else:
                cut = _longest(word, room)
                found.append(word[:cut])
                word = word[cut:]
    return [*found, current] if current else found


def _longest(word: str, room: int) -> int:
    """How many characters of `word` fit."""
    cut = min(len(word), room)
    while cut > 1 and len(quoted(word[:cut])) - 2 > room:
        cut -= 1
    return cut


def _flat(node: Node) -> str:
    match node:
        case Raw():
            return node.code
        case Text():
            return quoted(node.value)
        case Call():
            parts = [*map(_flat, node.args), *(f"{name}={_flat(value)}" for name, value in node.kwargs.items())]
            return f"{node.function}({', '.join(parts)})"
        case Array():
            inner = ", ".join(map(_flat, node.items))
            comma = "," if node.brackets == "()" and len(node.items) == 1 else ""
            return f"{node.brackets[0]}{inner}{comma}{node.brackets[1]}"
        case Table():
            return "{" + ", ".join(f"{quoted(name)}: {_flat(item)}" for name, item in node.items.items()) + "}"


def quoted(text: str) -> str:
    """A text as Python writes it; in the quotes that need fewer escapes, double ones if in doubt."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(character, quote) for character in text) + quote


def _escaped(character: str, quote: str) -> str:
    if character == quote:
        return f"\\{quote}"
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
