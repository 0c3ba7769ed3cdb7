"""Finding things in texts: by regular expressions that users give, and numbers and addresses by our own.

Invariants: users' expressions have a time (`patterns`); ours are linear in the text, whatever it is.
"""

import re
from typing import Final

from ..errors import AgentError
from ..patterns import INVALID_REGEX, SECONDS, compiled, expansion, in_time
from .models import CountOccurrences, RegexMatch, RegexReplace, RegexSplit, RegexTest

_EMAIL: Final = re.compile(  # begins only where a word does, and its parts have an end: no run is looked at twice
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}(?![A-Za-z0-9-])"
)
_URL: Final = re.compile(r"\b(?:https?|ftp)://[^\s<>\[\]{}|\\^`\"\x00-\x1f]+", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d+", re.ASCII)
_DECIMALS: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DIGITS_OF_A_NUMBER: Final = 300  # more are none that JSON's readers know


def replaced(inputs: RegexReplace) -> str:
    pattern = compiled(inputs.pattern, ignore_case=inputs.case_insensitive)
    expand = expansion(inputs.replacement, pattern)
    with in_time():
        return pattern.sub(expand, inputs.text, count=0 if inputs.global_ else 1, timeout=SECONDS)


def first_match(inputs: RegexMatch) -> str | None:
    pattern = compiled(inputs.pattern, ignore_case=inputs.case_insensitive)
    _check_group(inputs.capture_group, pattern.groups)
    with in_time():
        found = pattern.search(inputs.text, timeout=SECONDS)
    return found.group(inputs.capture_group) if found else None


def all_matches(inputs: RegexMatch) -> list[str]:
    """Without the matches in which the group has no part."""
    pattern = compiled(inputs.pattern, ignore_case=inputs.case_insensitive)
    _check_group(inputs.capture_group, pattern.groups)
    with in_time():
        each = (found.group(inputs.capture_group) for found in pattern.finditer(inputs.text, timeout=SECONDS))
        return [text for text in each if text is not None]


def is_found(inputs: RegexTest) -> bool:
    with in_time():
        pattern = compiled(inputs.pattern, ignore_case=inputs.case_insensitive)
        return pattern.search(inputs.text, timeout=SECONDS) is not None


def parts(inputs: RegexSplit) -> list[str]:
    """Groups of the pattern are not among the parts, unlike those of Python's `split`."""
    if not inputs.text:
        return []
    pattern = compiled(inputs.pattern, ignore_case=False)
    found: list[str] = []
    at = 0
    with in_time():
        for match in pattern.finditer(inputs.text, timeout=SECONDS):
            if inputs.limit and len(found) + 1 >= inputs.limit:
                break
            found.append(inputs.text[at : match.start()])
            at = match.end()
    return [*found, inputs.text[at:]]


def count(inputs: CountOccurrences) -> int:
    if inputs.use_regex:
        pattern = compiled(inputs.pattern, ignore_case=inputs.case_insensitive)
        with in_time():
            return sum(1 for _ in pattern.finditer(inputs.text, timeout=SECONDS))
    if not inputs.pattern:
        return 0
    text, part = inputs.text, inputs.pattern
    return text.lower().count(part.lower()) if inputs.case_insensitive else text.count(part)


def numbers(text: str, *, decimals: bool, negative: bool) -> list[int | float]:
    """A minus belongs to a number unless a letter or digit stands before it, as in 10-20."""
    found: list[int | float] = []
    for match in (_DECIMALS if decimals else _DIGITS).finditer(text):
        digits, start = match.group(), match.start()
        if len(digits) > _DIGITS_OF_A_NUMBER:
            continue
        number = float(digits) if "." in digits else int(digits)
        minus = negative and text[start - 1 : start] == "-" and not text[max(start - 2, 0) : start - 1].isalnum()
        found.append(-number if minus else number)
    return found


def emails(text: str) -> list[str]:
    return _EMAIL.findall(text)


def urls(text: str) -> list[str]:
    return [_without_sentence(url) for url in _URL.findall(text)]


def _without_sentence(url: str) -> str:
    """A comma, a full stop or a bracket that was never opened belongs to the sentence."""
    while True:
        shorter = url.rstrip(".,;:!?'*")
        if shorter.endswith(")") and shorter.count(")") > shorter.count("("):
            shorter = shorter[:-1]
        if shorter == url:
            return url
        url = shorter


def _check_group(group: int, groups: int) -> None:
    if group > groups:
        raise AgentError(INVALID_REGEX, f"the pattern has {groups} groups, and no group {group}")
