"""Conditions at run time: what is true, equal, smaller, contained, empty.

A condition is an expression like any other; so `LENGTH` stands inside a comparison, and a comparison is a value.

Invariants: comparing never fails, what cannot be compared is simply false; numbers compare with numeric text, but a
boolean is never a number; AND and OR look no further than they must.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from .coercions import as_text, number_in
from .values import MISSING, Expression, Scope, resolve

Comparison = Callable[[object, object], bool]


@dataclass(frozen=True, slots=True)
class Compare(Expression):
    """`left <op> right`."""

    op: str
    left: object
    right: object

    def of(self, scope: Scope) -> bool:
        return COMPARISONS[self.op](resolve(self.left, scope), resolve(self.right, scope))


@dataclass(frozen=True, slots=True)
class Check(Expression):
    """`<op> value`; LENGTH gives a number."""

    op: str
    value: object

    def of(self, scope: Scope) -> object:
        return TESTS[self.op](resolve(self.value, scope))


@dataclass(frozen=True, slots=True)
class AllOf(Expression):
    parts: tuple[object, ...]

    def of(self, scope: Scope) -> bool:
        return all(is_true(resolve(part, scope)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf(Expression):
    parts: tuple[object, ...]

    def of(self, scope: Scope) -> bool:
        return any(is_true(resolve(part, scope)) for part in self.parts)


def holds(condition: object, scope: Scope) -> bool:
    """Whether a condition (or any value, by its truth) is true."""
    return is_true(resolve(condition, scope))


def is_true(value: object) -> bool:
    """Null, false, 0, and empty texts, arrays and objects are false; everything else is true."""
    return value is not None and value is not MISSING and bool(value)


def equal(left: object, right: object) -> bool:
    """As JSON; a number also equals a text that is that number."""
    if isinstance(left, str) is not isinstance(right, str):
        one, other = number_in(left), number_in(right)
        return one is not None and one == other
    return _same(left, right)


def _same(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _ordered(compare: Callable[[int], bool]) -> Comparison:
    """A comparison of two numbers (also in text), or of two texts; of anything else it is false."""

    def ordered(left: object, right: object) -> bool:
        sign = order(left, right)
        return sign is not None and compare(sign)

    return ordered


def order(left: object, right: object) -> int | None:
    """-1, 0 or 1 where left is less than, equal to, or greater than right; None where they have no order."""
    one, other = number_in(left), number_in(right)
    if one is not None and other is not None:
        return (one > other) - (one < other)
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    return None


def contains(whole: object, part: object) -> bool:
    """A text within a text, an element of an array, a key of an object."""
    if isinstance(whole, str):
        return part is not None and as_text(part) in whole
    if isinstance(whole, list):
        return any(equal(element, part) for element in whole)
    return isinstance(whole, Mapping) and isinstance(part, str) and part in whole


def _begins(whole: object, part: object) -> bool:
    return whole is not None and part is not None and as_text(whole).startswith(as_text(part))


def _ends(whole: object, part: object) -> bool:
    return whole is not None and part is not None and as_text(whole).endswith(as_text(part))


def length(value: object) -> int:
    """Of a text, array or object; 0 for null; of anything else that of its text."""
    if value is None:
        return 0
    return len(value) if isinstance(value, (str, list, Mapping)) else len(as_text(value))


def is_empty(value: object) -> bool:
    """Null and empty texts, arrays and objects; 0 and false are not."""
    return value is None or (isinstance(value, (str, list, Mapping)) and not value)


COMPARISONS: Final[dict[str, Comparison]] = {
    "EQ": equal,
    "NE": lambda left, right: not equal(left, right),
    "GT": _ordered(lambda sign: sign > 0),
    "GTE": _ordered(lambda sign: sign >= 0),
    "LT": _ordered(lambda sign: sign < 0),
    "LTE": _ordered(lambda sign: sign <= 0),
    "STARTS_WITH": _begins,
    "ENDS_WITH": _ends,
    "CONTAINS": contains,
    "IN": lambda left, right: contains(right, left),
    "NOT_IN": lambda left, right: not contains(right, left),
}
TESTS: Final[dict[str, Callable[[object], object]]] = {
    "NOT": lambda value: not is_true(value),
    "LENGTH": length,
    "IS_DEFINED": lambda value: value is not None,
    "IS_EMPTY": is_empty,
    "IS_NOT_EMPTY": lambda value: not is_empty(value),
}

# What generated code calls them.


def all_of(*parts: object) -> AllOf:
    return AllOf(parts)


def any_of(*parts: object) -> AnyOf:
    return AnyOf(parts)


def compare(left: object, op: str, right: object) -> Compare:
    return Compare(op, left, right)


def check(op: str, value: object) -> Check:
    return Check(op, value)
