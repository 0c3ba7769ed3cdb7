"""Cutting, filling and folding of texts, counted in code points."""

import re
import unicodedata
from typing import Final

from .models import Side

# What the decomposition of Unicode leaves whole.
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ð": "d", "þ": "th", "ł": "l", "đ": "d", "ħ": "h", "ı": "i"}
)
_DROPPED: Final = re.compile(r"[^a-z0-9\s_-]+")
_BETWEEN: Final = re.compile(r"[\s_-]+")


def slug(text: str) -> str:
    """Lower case, ASCII letters and digits, single hyphens."""
    plain = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    return _BETWEEN.sub("-", _DROPPED.sub("", plain)).strip("-")


def title(text: str) -> str:
    """Each word with a capital, its other letters small, single spaces."""
    return " ".join(word[:1].upper() + word[1:].lower() for word in text.split())


def lines_of(text: str) -> list[str]:
    """Its lines, at \\n and \\r\\n only."""
    return re.split(r"\r?\n", text.removesuffix("\n").removesuffix("\r"))


def padded(text: str, length: int, char: str, side: Side) -> str:
    missing = length - len(text)
    if missing <= 0:
        return text
    match side:
        case "left":
            return char * missing + text
        case "right":
            return text + char * missing
        case _:
            return char * (missing // 2) + text + char * (missing - missing // 2)


def truncated(text: str, length: int, suffix: str, *, at_words: bool) -> str:
    if len(text) <= length:
        return text
    kept = length - len(suffix)
    if kept <= 0:
        return suffix[:length]
    cut = text[:kept]
    if at_words and not (text[kept].isspace() or cut[-1].isspace()):
        words = cut.rsplit(None, 1)
        cut = words[0] if len(words) == 2 else cut
    return (cut.rstrip() if at_words else cut) + suffix


def wrapped(text: str, width: int, *, keep_lines: bool) -> str:
    """Lines of at most `width` characters; a longer word is cut."""
    lines = lines_of(text) if keep_lines else [text]
    return "\n".join(line for one in lines for line in _wrapped_line(one, width))


def _wrapped_line(line: str, width: int) -> list[str]:
    if len(line) <= width and "\n" not in line:
        return [line]
    found: list[str] = []
    current = ""
    for word in line.split():
        if current and len(current) + 1 + len(word) <= width:
            current += f" {word}"
            continue
        if current:
            found.append(current)
        pieces = [word[at : at + width] for at in range(0, len(word), width)]
        found += pieces[:-1]
        current = pieces[-1]
    return [*found, current] if current or not found else found
