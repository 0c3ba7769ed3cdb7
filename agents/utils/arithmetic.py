"""Arithmetic that users write as text, by `simpleeval`, with nothing but numbers in it.

Invariants: an expression has no names but its variables' and a few functions', no attributes, texts or loops; whole
numbers stay exact and are bounded in digits, so that no power fills the memory.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Final

import simpleeval

from ..errors import AgentError
from .models import PLACES

INVALID_EXPRESSION: Final = "UTILS_INVALID_EXPRESSION"
UNKNOWN_VARIABLE: Final = "UTILS_UNKNOWN_VARIABLE"
INVALID_VARIABLE: Final = "UTILS_INVALID_VARIABLE"
DIVISION_BY_ZERO: Final = "UTILS_DIVISION_BY_ZERO"
NOT_A_NUMBER: Final = "UTILS_NOT_A_NUMBER"
CHARACTERS: Final = 2_000  # of an expression
BITS: Final = 1_024  # of a whole number, as many as a float's largest has
EXACT: Final = 2**53  # up to here a float is a whole number without doubt

Number = int | float


def calculated(expression: str, variables: Mapping[str, Number | str | None]) -> Number:
    """The value. Raises `AgentError` UTILS_INVALID_EXPRESSION, _UNKNOWN_VARIABLE, _INVALID_VARIABLE, _DIVISION_BY_ZERO
    or _NOT_A_NUMBER."""
    if len(expression) > CHARACTERS:
        raise AgentError(INVALID_EXPRESSION, f"an expression has at most {CHARACTERS:,} characters")
    evaluator = simpleeval.SimpleEval(
        operators=_OPERATORS,
        functions=_FUNCTIONS,
        names={name: _number(name, text) for name, text in variables.items()},
    )
    evaluator.nodes = {kind: visit for kind, visit in evaluator.nodes.items() if kind in _NODES}
    try:
        result = evaluator.eval(expression, ast.parse(expression.strip(), mode="eval").body)
    except simpleeval.NameNotDefined as exc:
        known = ", ".join(sorted(variables)) or "none"
        raise AgentError(UNKNOWN_VARIABLE, f"there is no variable {exc.name!r}; given are: {known}") from None
    except ZeroDivisionError:
        raise AgentError(DIVISION_BY_ZERO, "it divides by zero") from None
    except (OverflowError, _TooLarge):
        raise AgentError(NOT_A_NUMBER, "the result is too large for a number") from None
    except (simpleeval.InvalidExpression, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as exc:
        reason = f"it cannot be calculated: {str(exc).partition(chr(10))[0] or type(exc).__name__}"
        raise AgentError(INVALID_EXPRESSION, reason) from None
    return _result(result)


def rounded(value: Number, places: int) -> Number:
    """Rounded as people do it, halves away from zero, in the decimal digits that are shown."""
    with localcontext() as context:
        context.prec = 400  # a float has up to 309 digits before the point
        exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    return int(exact) if places == 0 else float(exact)


class _TooLarge(ArithmeticError):
    pass


def _number(name: str, given: Number | str | None) -> Number:
    try:
        found = _parsed(given) if isinstance(given, str) else given
        if found is not None and math.isfinite(found):
            return found
    except (ValueError, OverflowError):
        pass
    raise AgentError(INVALID_VARIABLE, f"the variable {name!r} is no number", attributes={"variable": name})


def _parsed(text: str) -> Number:
    try:
        return _bounded(int(text))
    except ValueError:
        return float(text)


def _result(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AgentError(INVALID_EXPRESSION, "it gives no number")
    if not math.isfinite(value):
        raise AgentError(NOT_A_NUMBER, "the result is too large for a number")
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > BITS:
        raise _TooLarge
    return value


def _binary(fn: Callable[[Number, Number], Number]) -> Callable[[object, object], Number]:
    def checked(left: object, right: object) -> Number:
        return _bounded(fn(_operand(left), _operand(right)))

    return checked


def _remainder(left: Number, right: Number) -> Number:
    """With the sign of `left`, as in the engine whose files we run; Python's own has that of `right`."""
    if right == 0:
        raise ZeroDivisionError
    if isinstance(left, int) and isinstance(right, int):
        return abs(left) % abs(right) * (-1 if left < 0 else 1)
    return math.fmod(left, right)


def _power(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > BITS:
        raise _TooLarge
    found: Number | complex = left**right
    if isinstance(found, complex):
        raise ValueError("a root of a negative number")
    return found


def _operand(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("it may hold numbers only")
    return _bounded(value)


def _rounded(value: object, places: object = 0) -> Number:
    return rounded(_operand(value), min(max(int(_operand(places)), 0), PLACES))


_NODES: Final = (ast.Expr, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Name, ast.Call)
_OPERATORS: Final = {
    ast.Add: _binary(operator.add),
    ast.Sub: _binary(operator.sub),
    ast.Mult: _binary(operator.mul),
    ast.Div: _binary(operator.truediv),
    ast.FloorDiv: _binary(operator.floordiv),
    ast.Mod: _binary(_remainder),
    ast.Pow: _binary(_power),
    ast.USub: lambda value: -_operand(value),
    ast.UAdd: lambda value: +_operand(value),
}
_FUNCTIONS: Final = {
    "abs": lambda value: abs(_operand(value)),
    "ceil": lambda value: math.ceil(_operand(value)),
    "floor": lambda value: math.floor(_operand(value)),
    "max": lambda *values: max(map(_operand, values)),
    "min": lambda *values: min(map(_operand, values)),
    "round": _rounded,
    "sqrt": lambda value: math.sqrt(_operand(value)),
}
