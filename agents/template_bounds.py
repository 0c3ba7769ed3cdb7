"""How much a template may do: turns, time, and how long texts may grow.

Jinja2's own sandbox keeps a template away from Python's insides. It does not keep it from working for ever or from
filling the memory, so what can multiply is measured before it happens: loops and calls are counted, repetitions, powers
and paddings are bounded, and joining and replacing are worked out first.

Invariants: the checks are made before the memory is taken; outside of `allowance` there is none, and nothing runs.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS

T = TypeVar("T")

TURNS: Final = 2_000_000  # of all loops and calls together: about a second
SECONDS: Final = 10.0  # of rendering, whatever the turns do
WIDTH: Final = 100_000  # of a padding; no one reads wider lines
CHARACTERS: Final = 16 * 1024 * 1024  # of a text, and items of an array: larger ones are no work for a template
BITS: Final = 4_096  # of a whole number
_left: ContextVar["_Allowance"] = ContextVar("runtara_template_allowance")


class _Allowance:
    def __init__(self) -> None:
        self.turns = TURNS
        self.until = time.monotonic() + SECONDS


@contextmanager
def allowance() -> Iterator[None]:
    """One rendering's share of everything."""
    token = _left.set(_Allowance())
    try:
        yield
    finally:
        _left.reset(token)


def spend_turn() -> None:
    """One turn of a loop, or one call."""
    left = _left.get()
    left.turns -= 1
    if left.turns < 0:
        raise SecurityError(f"it takes more than {TURNS:,} turns of loops and calls")
    if time.monotonic() > left.until:
        raise SecurityError(f"it takes longer than {SECONDS:g} s")


def counted(items: Iterable[T]) -> Iterator[T]:
    """The items of a loop, each of them a turn."""
    for item in items:
        spend_turn()
        yield item


def check_size(characters: int) -> None:
    if characters > CHARACTERS:
        raise SecurityError(f"a text has at most {CHARACTERS:,} characters")


def checked(value: T) -> T:
    """The value, if it is not too large."""
    check_size(size_of(value))
    return value


def check_operation(operator: str, left: object, right: object) -> None:
    """What a binary operation would give, before it is done."""
    match operator:
        case "+":
            check_size(size_of(left) + size_of(right))
        case "*" if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        case "*":
            times = left if isinstance(left, int) else right
            check_size(max(size_of(left), size_of(right)) * times if isinstance(times, int) else 0)
        case "**" if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        case "%" if isinstance(left, str):
            _check_format(left, (right,))
        case _:
            pass


def check_call(target: object, arguments: Sequence[object]) -> None:
    """What a text's method would give, before it is called."""
    text, name = getattr(target, "__self__", None), getattr(target, "__name__", "")
    if isinstance(text, str):
        _check_method(text, name, arguments)
    elif name == "to_bytes":
        _check_widths(arguments)


def bounded_filters() -> dict[str, Callable[..., Any]]:
    """Jinja2's filters that can multiply, with their result worked out first."""
    measures: dict[str, Callable[[Any, Sequence[object]], None]] = {
        **dict.fromkeys(("batch", "center", "round", "slice", "tojson"), lambda value, rest: _check_widths(rest)),
        "format": lambda text, rest: _check_format(str(text), rest),
        "indent": lambda text, rest: check_size((str(text).count("\n") + 1) * _widest(rest)),
        "join": lambda items, rest: _check_join(items, rest),
        "replace": lambda text, rest: _check_replace(str(text), rest),
        "wordwrap": lambda text, rest: check_size((len(str(text)) + 1) * _longest(list(rest))),
    }
    return {name: _measured(FILTERS[name], measure) for name, measure in measures.items()}


def format_checked(method: Callable[..., str], text: str) -> Callable[..., str]:
    """The method `format` or `format_map` of `text`, with its result worked out first."""

    def checked_first(*args: object, **kwargs: object) -> str:
        _check_format(text, (*args, *kwargs.values()))
        return method(*args, **kwargs)

    return checked_first


def size_of(value: object) -> int:
    """Characters of a text, items of an array."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 0


def _measured(fn: Callable[..., T], measure: Callable[[Any, Sequence[object]], None]) -> Callable[..., T]:
    takes_more = getattr(fn, "jinja_pass_arg", None) is not None  # an evaluation context comes first

    def measured(*args: Any, **kwargs: Any) -> T:
        given = args[1:] if takes_more else args
        if not isinstance(given[0], str | list | tuple | dict | int | float | None):
            given = (list(counted(given[0])), *given[1:])
        measure(given[0], (*given[1:], *kwargs.values()))
        return fn(*args[:1], *given, **kwargs) if takes_more else fn(*given, **kwargs)

    if takes_more:
        measured.jinja_pass_arg = fn.jinja_pass_arg  # type: ignore[attr-defined]
    return measured


def _check_method(text: str, name: str, arguments: Sequence[object]) -> None:
    match name:
        case "join":
            _check_join(arguments[0] if arguments else (), (text,))
        case "replace":
            _check_replace(text, arguments)
        case "translate":
            raise SecurityError("the method translate; use replace")
        case "center" | "ljust" | "rjust" | "zfill":
            _check_widths(arguments)
        case "expandtabs":
            check_size((text.count("\t") + 1) * _widest(arguments))
        case _:
            pass


def _check_join(items: object, rest: Sequence[object]) -> None:
    """The longest text among arguments stands for the separator, and within items for the attribute that is joined."""
    if isinstance(items, str | list | tuple | dict):
        check_size(sum(_longest(item) for item in items) + len(items) * _longest(list(rest)))


def _check_replace(text: str, rest: Sequence[object]) -> None:
    texts = [str(one) for one in rest[:2]]
    if len(texts) == 2:
        check_size(len(text) + text.count(texts[0]) * len(texts[1]))


def _check_format(text: str, arguments: Sequence[object]) -> None:
    """Widths in the format itself; none may come from an argument, as `*` and `{}` within braces let them."""
    digits = "".join(char if char.isdecimal() else " " for char in text).split()
    nested = "{" in text.replace("{{", "").partition("{")[2].partition("}")[0]
    if nested or "*" in text or any(len(run) > 6 or int(run) > WIDTH for run in digits):
        raise SecurityError(f"a format with a width above {WIDTH:,}, or one that is an argument")
    check_size(len(text) + (text.count("{") + text.count("%")) * _longest(list(arguments)))


def _longest(value: object) -> int:
    match value:
        case str():
            return len(value)
        case dict():
            return max((_longest(one) for one in value.values()), default=0)
        case list() | tuple():
            return max((_longest(one) for one in value), default=0)
        case _:
            return 32  # a number


def _widest(values: Iterable[object]) -> int:
    return max((value if isinstance(value, int) else size_of(value) for value in values), default=1)


def _check_widths(values: Iterable[object]) -> None:
    if any(isinstance(value, int) and value > WIDTH for value in values):
        raise SecurityError(f"a width above {WIDTH:,}")


def _check_bits(bits: int) -> None:
    if bits > BITS:
        raise SecurityError(f"a number has at most {BITS:,} bits")
