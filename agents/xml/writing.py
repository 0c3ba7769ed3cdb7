"""From JSON to XML: the inverse of `reading`.

Invariants: what is written is well-formed, and is read as the same value: names, prefixes and characters that XML does
not have are errors with the path to them, never left out or replaced.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from pydantic import JsonValue

from ..errors import AgentError
from .reading import DEPTH, TOO_DEEP

INVALID_NAME: Final = "XML_INVALID_NAME"
INVALID_TEXT: Final = "XML_INVALID_TEXT"
INVALID_VALUE: Final = "XML_INVALID_VALUE"
ATTRIBUTES: Final = "@attributes"
TEXT: Final = "@text"
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
_START: Final = "A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f\u2c00-\u2fef"
_START_ALL: Final = _START + "\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
_PART: Final = f"[{_START_ALL}][-.0-9\xb7\u0300-\u036f\u203f\u2040{_START_ALL}]*"
_NAME: Final = re.compile(f"(?:({_PART}):)?{_PART}")
_FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEPT: Final = {"\r": "&#13;"}  # else a reader takes it for a line feed
_KEPT_IN_ATTRIBUTES: Final = {'"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def written(value: JsonValue, *, root: str | None, indent: int, declaration: bool) -> str:
    """The document. Raises `AgentError` XML_INVALID_NAME, XML_INVALID_TEXT, XML_INVALID_VALUE or XML_TOO_DEEP."""
    name, content = _root(value, root)
    lines = _Lines(indent)
    if declaration:
        lines.add(0, DECLARATION)
    _element(lines, name, content, (name,), frozenset({"xml"}))
    return lines.text()


def _root(value: JsonValue, root: str | None) -> tuple[str, JsonValue]:
    if isinstance(value, list):
        return root or "root", {"item": value}
    if root is not None:
        return root, value
    if isinstance(value, dict) and len(value) == 1:
        name, content = next(iter(value.items()))
        if name not in (ATTRIBUTES, TEXT) and not isinstance(content, list):
            return name, content
    return "root", value


class _Lines:
    """The text as it grows. Without an indent there are no line ends, but for one after the declaration."""

    def __init__(self, indent: int) -> None:
        self._indent = indent
        self._parts: list[str] = []

    def add(self, depth: int, text: str) -> None:
        if self._indent and self._parts:
            self._parts.append("\n" + " " * (self._indent * depth))
        elif text == DECLARATION:
            text += "" if self._indent else "\n"
        self._parts.append(text)

    def text(self) -> str:
        return "".join(self._parts) + ("\n" if self._indent else "")


def _element(lines: _Lines, name: str, value: JsonValue, path: tuple[str, ...], prefixes: frozenset[str]) -> None:
    depth = len(path) - 1
    if depth >= DEPTH:
        raise AgentError(TOO_DEEP, f"it is nested more than {DEPTH} deep")
    content = value if isinstance(value, dict) else {TEXT: value}
    attributes = _attributes(content.get(ATTRIBUTES), path)
    prefixes |= {key.removeprefix("xmlns:") for key in attributes if key.startswith("xmlns:")}
    _check_name(name, path, prefixes)
    for each in attributes:
        _check_name(each, path, prefixes | {"xmlns"})
    head = name + "".join(f' {key}="{escape(text, _KEPT_IN_ATTRIBUTES)}"' for key, text in attributes.items())
    children = list(_children(content))
    text = escape(_text(content.get(TEXT), path), _KEPT)
    if not children:
        lines.add(depth, f"<{head}>{text}</{name}>" if text else f"<{head}/>")
        return
    if text:
        lines = _Inline(lines, depth)  # white space among the children would become part of the text
    lines.add(depth, f"<{head}>{text}")
    for key, child in children:
        _element(lines, key, child, (*path, key), prefixes)
    lines.add(depth, f"</{name}>")


class _Inline(_Lines):
    """Adds to the end of the line of another."""

    def __init__(self, outer: _Lines, depth: int) -> None:
        super().__init__(0)
        outer.add(depth, "")
        self._parts = outer._parts


def _children(content: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    for key, value in content.items():
        if key not in (ATTRIBUTES, TEXT):
            each: Iterable[JsonValue] = value if isinstance(value, list) else (value,)
            yield from ((key, one) for one in each)


def _attributes(value: JsonValue, path: tuple[str, ...]) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AgentError(INVALID_VALUE, f"{_at(path)}: {ATTRIBUTES} is an object of names and texts")
    return {key: _text(one, (*path, f"@{key}")) for key, one in value.items()}


def _text(value: JsonValue, path: tuple[str, ...]) -> str:
    match value:
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case str() | int() | float():
            text = str(value)
        case _:
            raise AgentError(INVALID_VALUE, f"{_at(path)}: an array of arrays, or an object as a text, has no XML")
    wrong = _FORBIDDEN.search(text)
    if wrong:
        reason = f"{_at(path)}: XML cannot hold the character U+{ord(wrong.group()):04X}; encode the text, as in base64"
        raise AgentError(INVALID_TEXT, reason)
    return text


def _check_name(name: str, path: tuple[str, ...], prefixes: frozenset[str]) -> None:
    found = _NAME.fullmatch(name)
    if found is None:
        raise AgentError(INVALID_NAME, f"{_at(path)}: {name!r} is no name in XML; use letters, digits, '-', '_', '.'")
    prefix = found.group(1)
    if prefix is not None and prefix not in prefixes:
        raise AgentError(INVALID_NAME, f"{_at(path)}: declare {prefix!r} by the attribute 'xmlns:{prefix}'")


def _at(path: tuple[str, ...]) -> str:
    return "/".join(path)
