"""How a Switch matches its value against a case: an operator of the conditions, BETWEEN [least, greatest], or RANGE.

Invariant: matching never fails; what cannot be compared does not match.
"""

from collections.abc import Callable, Mapping
from typing import Final

from .conditions import COMPARISONS, TESTS, equal, is_true, order

_BOUNDS: Final[dict[str, Callable[[int], bool]]] = {
    "gte": lambda sign: sign >= 0,
    "gt": lambda sign: sign > 0,
    "lte": lambda sign: sign <= 0,
    "lt": lambda sign: sign < 0,
}
_WITHOUT_MATCH: Final = frozenset({"IS_DEFINED", "IS_EMPTY", "IS_NOT_EMPTY"})


def matches(value: object, kind: str, match: object) -> bool:
    """Whether `value` is one for the case. A test that takes no `match` (IS_EMPTY, say) holds if it is as `match` says:
    true unless that is false."""
    match kind:
        case "EQ" if isinstance(match, list) and not isinstance(value, list):
            return any(equal(value, one) for one in match)
        case "BETWEEN":
            return isinstance(match, list) and len(match) == 2 and _within(value, {"gte": match[0], "lte": match[1]})
        case "RANGE":
            return isinstance(match, Mapping) and _within(value, match)
        case _ if kind in _WITHOUT_MATCH:
            return TESTS[kind](value) is (match is None or is_true(match))
        case _:
            return COMPARISONS[kind](value, match)


def _within(value: object, bounds: Mapping[str, object]) -> bool:
    """Bounds that are null are none."""
    signs = [(name, order(value, bound)) for name, bound in bounds.items() if bound is not None]
    return all(sign is not None and _BOUNDS[name](sign) for name, sign in signs)
