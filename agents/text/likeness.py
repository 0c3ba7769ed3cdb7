"""How alike two texts are, by the measures that have names.

Invariants: symmetric, in code points; the quadratic ones are bounded.
"""

from typing import Final

from ..errors import AgentError

TOO_LONG: Final = "TEXT_TOO_LONG"
CELLS: Final = 10_000_000  # of the table of distances: some seconds


def levenshtein(one: str, other: str) -> int:
    """How many characters must be put in, taken out or changed. Raises `AgentError` TEXT_TOO_LONG."""
    if len(one) < len(other):
        one, other = other, one
    _check_product(one, other)
    row = list(range(len(other) + 1))
    for above, char in enumerate(one, 1):
        diagonal, row[0] = row[0], above
        for at, mine in enumerate(other, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (char != mine))
    return row[-1]


def jaro(one: str, other: str) -> float:
    """From 0 to 1: characters in common that are not far apart, and how many of them are in another order."""
    if one == other:
        return 1.0
    _check_product(one, other)
    reach = max(max(len(one), len(other)) // 2 - 1, 0)
    free = list(other)
    taken: list[int] = []
    mine: list[str] = []
    for at, char in enumerate(one):
        found = next((n for n in range(max(at - reach, 0), min(at + reach + 1, len(other))) if free[n] == char), None)
        if found is not None:
            free[found] = ""
            taken.append(found)
            mine.append(char)
    if not mine:
        return 0.0
    theirs = [other[n] for n in sorted(taken)]
    swapped = sum(a != b for a, b in zip(mine, theirs, strict=True)) / 2
    count = len(mine)
    return (count / len(one) + count / len(other) + (count - swapped) / count) / 3


def jaro_winkler(one: str, other: str) -> float:
    """As `jaro`, and higher for texts that begin alike."""
    base = jaro(one, other)
    prefix = 0
    for a, b in zip(one[:4], other[:4], strict=False):
        if a != b:
            break
        prefix += 1
    return base + prefix * 0.1 * (1 - base)


def ngram_jaccard(one: str, other: str, length: int) -> float:
    """Pieces of `length` characters that both have, among those that any has; case does not count."""
    a, b = _ngrams(one, length), _ngrams(other, length)
    return len(a & b) / len(a | b) if a or b else 1.0


def ngram_overlap(one: str, other: str, length: int) -> float:
    """Pieces of `length` characters that both have, among those of the one that has fewer."""
    a, b = _ngrams(one, length), _ngrams(other, length)
    if not a or not b:
        return float(a == b)
    return len(a & b) / min(len(a), len(b))


def _ngrams(text: str, length: int) -> set[str]:
    lower = text.lower()
    return {lower[at : at + length] for at in range(len(lower) - length + 1)}


def _check_product(one: str, other: str) -> None:
    if len(one) * len(other) > CELLS:
        reason = f"texts of {len(one):,} and {len(other):,} characters take too long to compare this way; use ngram-…"
        raise AgentError(TOO_LONG, reason)
