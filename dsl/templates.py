"""Templates in values: a Jinja2 text over the roots of the scope, in a sandbox.

Invariants: what is undefined, however deep, renders empty, and so does null; objects and arrays render as JSON; nothing
of Python can be reached or changed; a result longer than the limit is an error, not a full memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

import orjson
from jinja2 import ChainableUndefined, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtara.protocol.errors import BadInput

from .values import Expression, Scope

MAX_RENDERED: Final = 1_048_576  # characters: a text in a mapping, not a document
MAX_EXPONENT: Final = 1_000
_CACHED: Final = 1_024


class TemplateFailed(BadInput):
    template = "the template {text!r} cannot be rendered: {reason}"
    text: str
    reason: str


class _Environment(ImmutableSandboxedEnvironment):
    """Multiplications and powers are looked at before they are made: they are how a short template fills a memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (_is_small(left) and _is_small(right)):
            raise SecurityError(f"a power of more than {MAX_EXPONENT}")
        if operator == "*" and max(_repeated(left, right), _repeated(right, left)) > MAX_RENDERED:
            raise SecurityError(f"more than {MAX_RENDERED:,} characters")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on text; use ~ to join texts")
        return super().call_binop(context, operator, left, right)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """As an undefined value it would render empty, and nobody would learn that it was refused."""
        raise SecurityError(f"{attribute!r} of {type(obj).__name__} cannot be reached from a template")


def _is_small(number: object) -> bool:
    return isinstance(number, (int, float)) and abs(number) <= MAX_EXPONENT


def _repeated(sequence: object, count: object) -> int:
    return len(sequence) * count if isinstance(sequence, (str, list, tuple)) and isinstance(count, int) else 0


def _as_text(value: object) -> object:
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
        case _:
            return value


_environment: Final = _Environment(
    undefined=ChainableUndefined, finalize=_as_text, autoescape=False, keep_trailing_newline=True
)


@dataclass(frozen=True, slots=True)
class TemplateText(Expression):
    text: str

    def of(self, scope: Scope) -> str:
        return render(self.text, scope.with_aliases())


def template(text: str, /) -> TemplateText:
    return TemplateText(text)


def render(text: str, roots: Mapping[str, object]) -> str:
    """Raises `TemplateFailed`."""
    try:
        return _rendered(compiled(text), roots)
    except TemplateError as exc:
        raise TemplateFailed(text=text, reason=exc.message or type(exc).__name__) from exc
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as exc:
        raise TemplateFailed(text=text, reason=f"{type(exc).__name__}: {exc}") from exc


def syntax(text: str) -> nodes.Template:
    """The template's syntax tree. Raises `TemplateSyntaxError`."""
    return _environment.parse(text)


@lru_cache(maxsize=_CACHED)
def compiled(text: str) -> Template:
    """Raises `TemplateError` (a `TemplateSyntaxError` has the line)."""
    return _environment.from_string(text)


def _rendered(template: Template, roots: Mapping[str, object]) -> str:
    parts, size = [], 0
    for part in template.generate(roots):
        size += len(part)
        if size > MAX_RENDERED:
            raise SecurityError(f"more than {MAX_RENDERED:,} characters")
        parts.append(part)
    return "".join(parts)
