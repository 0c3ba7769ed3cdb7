"""\"Did you mean\": of the names that exist, the one that a misspelt name is nearest to."""

from collections.abc import Iterable
from typing import Final

MAX_COMPARED: Final = 64  # characters; longer names are no slips of the finger
_SHARE: Final = 3  # a third of the letters may differ


def distance(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that lead from one to the other."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, last, row = row, before, [i]
        for j, b in enumerate(right, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """None if nothing is near enough. Case, `-` and `_` count as nothing."""
    plain = _plain(name)
    if not plain or len(plain) > MAX_COMPARED:
        return None
    limit = max(1, len(plain) // _SHARE)
    best: tuple[int, str] | None = None
    for candidate in candidates:
        other = _plain(candidate)
        if abs(len(other) - len(plain)) > limit:
            continue
        found = (distance(plain, other), candidate)
        if found[0] <= limit and (best is None or found < best):
            best = found
    return None if best is None else best[1]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")
