"""Regular expressions that users give: compiled, and matched within a time.

The library `regex` looks at a clock while it matches, so a pattern that would take for ever on some text ends in an
error; its syntax is that of Python's `re`, and more.

It has no such look at its memory: `(a{9999}){9999}` becomes a program of a hundred million parts. So what a pattern's
least repetitions multiply to is worked out before it is compiled.

Invariants: no pattern holds a thread for longer than `SECONDS`, or becomes more than `PROGRAM_PARTS`; no replacement
makes a text longer than `RESULT_CHARACTERS`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import regex

from .errors import AgentError

INVALID_REGEX: Final = "TEXT_INVALID_REGEX"
REGEX_TIMEOUT: Final = "TEXT_REGEX_TIMEOUT"
TOO_LONG: Final = "TEXT_TOO_LONG"
SECONDS: Final = 2.0  # for one call: 10 MB take an ordinary pattern a tenth of it
PATTERN_CHARACTERS: Final = 10_000
RESULT_CHARACTERS: Final = 32 * 1024 * 1024  # 64 MiB, the most the platform carries, is that much of two-byte text
PROGRAM_PARTS: Final = 20_000  # of a compiled pattern, 0.3 to 0.7 kB each
CACHED: Final = 32  # patterns, so of those that are as large as they may be less than half a gigabyte
_COUNT: Final = regex.compile(r"(^|.)\{(\d+)", regex.DOTALL | regex.ASCII)
_AFTER_GROUP: Final = frozenset(")}+*? \t\r\n")  # what may stand between a group and its count
_DOLLAR: Final = regex.compile(r"\$(?:(\$)|(\d{1,3}|[A-Za-z_]\w*)|\{([^{}]*)\})", regex.ASCII)

Expand = Callable[["regex.Match[str]"], str]


@lru_cache(maxsize=CACHED)
def compiled(pattern: str, *, ignore_case: bool) -> "regex.Pattern[str]":
    """The pattern. Raises `AgentError` TEXT_INVALID_REGEX."""
    if len(pattern) > PATTERN_CHARACTERS:
        raise AgentError(INVALID_REGEX, f"a pattern has at most {PATTERN_CHARACTERS:,} characters")
    if _parts(pattern) > PROGRAM_PARTS:
        reason = f"its least repetitions, as in (a{{100}}){{100}}, multiply to more than {PROGRAM_PARTS:,}"
        raise AgentError(INVALID_REGEX, reason)
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, OverflowError, RecursionError, ValueError) as exc:
        reason = f"it is no regular expression: {exc}"
        raise AgentError(INVALID_REGEX, reason, attributes={"pattern": pattern[:200]}) from None


@contextmanager
def in_time() -> Iterator[None]:
    """Around matching with `timeout=SECONDS`: turns the library's TimeoutError into ours."""
    try:
        yield
    except TimeoutError:
        reason = f"the pattern took longer than {SECONDS:g} s on this text; make it simpler, or the text shorter"
        raise AgentError(REGEX_TIMEOUT, reason) from None


def expansion(replacement: str, pattern: "regex.Pattern[str]") -> Expand:
    """What replaces a match: `$1`, `$name`, `${name}` are its groups, `$0` all of it, `$$` is a dollar.

    Raises `AgentError` TEXT_INVALID_REGEX for a group that the pattern has not, and, as it is used, TEXT_TOO_LONG.
    """
    pieces = list(_pieces(replacement, pattern))
    budget = _Budget(RESULT_CHARACTERS)

    def expand(match: "regex.Match[str]") -> str:
        text = "".join(piece if isinstance(piece, str) else match.group(piece[0]) or "" for piece in pieces)
        budget.spend(len(text))
        return text

    return expand


def check_length(characters: int) -> None:
    """Raises `AgentError` TEXT_TOO_LONG for more than a text may have."""
    if characters > RESULT_CHARACTERS:
        raise AgentError(TOO_LONG, f"the text would have more than {RESULT_CHARACTERS:,} characters")


def _parts(pattern: str) -> int:
    """At least what the library makes of it: counts behind single characters add up, those behind groups multiply, as
    if all groups lay within each other."""
    alone, times = len(pattern), 1
    for before, digits in _COUNT.findall(pattern, overlapped=True):
        count = int(digits[:7])
        if before in _AFTER_GROUP:
            times *= max(count, 1)
        else:
            alone += count
        if times > PROGRAM_PARTS:
            break
    return alone * times


class _Budget:
    def __init__(self, characters: int) -> None:
        self._left = characters

    def spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            check_length(RESULT_CHARACTERS + 1)


def _pieces(replacement: str, pattern: "regex.Pattern[str]") -> Iterator[str | tuple[str | int]]:
    """Plain texts, and the groups between them as one-tuples."""
    at = 0
    for found in _DOLLAR.finditer(replacement):
        yield replacement[at : found.start()]
        at = found.end()
        name = found[2] if found[2] is not None else found[3]
        yield "$" if found[1] else (_group(name, pattern),)
    yield replacement[at:]


def _group(name: str, pattern: "regex.Pattern[str]") -> str | int:
    if name.isdecimal() and int(name) <= pattern.groups:
        return int(name)
    if name in pattern.groupindex:
        return name
    raise AgentError(INVALID_REGEX, f"the pattern has no group {name!r}; a dollar sign is written $$")
