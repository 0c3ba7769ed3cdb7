"""Jinja2 templates that users give, in a sandbox: the one for `render-template` and for template values of JSON
workflows.

Invariants: a template reads nothing but its context: no files, no imports, nothing of Python's insides, and it changes
nothing; what is undefined renders as nothing, null too; true, false, arrays and objects render as JSON; a key of an
object comes before a method of the same name; work, time and memory are bounded (`template_bounds`); whatever goes
wrong is an `AgentError`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Never, cast

from jinja2 import ChainableUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from pydantic import JsonValue

from .errors import AgentError
from .template_bounds import (
    CHARACTERS,
    allowance,
    bounded_filters,
    check_call,
    check_operation,
    checked,
    counted,
    format_checked,
    spend_turn,
)

PARSE_ERROR: Final = "TEXT_TEMPLATE_PARSE_ERROR"
RENDER_ERROR: Final = "TEXT_TEMPLATE_RENDER_ERROR"
REFUSED: Final = "TEXT_TEMPLATE_REFUSED"
TOO_LARGE: Final = "TEXT_TEMPLATE_TOO_LARGE"
TEMPLATE_CHARACTERS: Final = 1024 * 1024
_REMOVED_FILTERS: Final = ("pprint", "random")  # shows Python's own forms; differs from run to run
_REMOVED_GLOBALS: Final = ("lipsum", "cycler", "joiner")  # random text; objects with a state
_COUNTED: Final = "_counted"
_CHECKED: Final = "_checked"
_TEXT: Final = "_text"
_WRONG: Final = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


def render(source: str, context: Mapping[str, JsonValue]) -> str:
    """The text of a template. Raises `AgentError` TEXT_TEMPLATE_PARSE_ERROR, _REFUSED, _RENDER_ERROR or _TOO_LARGE."""
    template = parsed(source)
    try:
        with allowance():
            return _joined(template.generate(context))
    except SecurityError as exc:
        raise AgentError(REFUSED, f"the template is refused: {exc}") from None
    except _WRONG as exc:
        raise AgentError(RENDER_ERROR, f"the template cannot be rendered: {_said(exc)}") from None


@lru_cache(maxsize=256)
def parsed(source: str) -> Template:
    """A template, ready to be rendered. Raises `AgentError` TEXT_TEMPLATE_PARSE_ERROR."""
    if len(source) > TEMPLATE_CHARACTERS:
        raise AgentError(PARSE_ERROR, f"a template has at most {TEMPLATE_CHARACTERS:,} characters")
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as exc:
        reason = f"the template is wrong at line {exc.lineno}: {exc.message}"
        raise AgentError(PARSE_ERROR, reason, attributes={"line": exc.lineno}) from None
    except (TemplateError, RecursionError, SyntaxError, MemoryError) as exc:
        raise AgentError(PARSE_ERROR, f"the template is wrong: {_said(exc)}") from None


def syntax(source: str) -> nodes.Template:
    """The syntax tree of a template, for who wants to know what it reads. Raises jinja2's `TemplateSyntaxError`."""
    return _environment().parse(source)


class _Bounds(NodeTransformer):
    """Puts the counting into loops, and the measuring behind `~`, whose operands become text as those of {{ }} do."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _through(_COUNTED, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        node.nodes = [_through(_TEXT, one) for one in node.nodes]
        return _through(_CHECKED, node)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with bounds, for JSON values."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Bounds().visit(tree)
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`order.items` is the key of that name, if there is one."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Never:
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else format_checked(wrapped, str(value.__self__))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        spend_turn()
        check_call(__obj, (*args, *kwargs.values()))
        if isinstance(__obj, LoopContext) and args:  # the next level of a recursive loop
            args = (counted(args[0]), *args[1:])
        return super().call(__context, __obj, *args, **kwargs)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    made = _Sandbox(
        undefined=ChainableUndefined,
        finalize=_as_json,
        autoescape=False,
        optimized=False,  # nothing is worked out before there is an allowance
        keep_trailing_newline=True,
    )
    for name in _REMOVED_FILTERS:
        del made.filters[name]
    for name in _REMOVED_GLOBALS:
        del made.globals[name]
    made.filters.update(bounded_filters())
    made.filters |= {_COUNTED: counted, _CHECKED: checked, _TEXT: _as_json}
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return made


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


def _joined(pieces: Iterable[str]) -> str:
    return "".join(_measured(pieces))


def _measured(pieces: Iterable[str]) -> Iterator[str]:
    characters = 0
    for piece in pieces:
        characters += len(piece)
        if characters > CHARACTERS:
            raise AgentError(TOO_LARGE, f"the rendered text has more than {CHARACTERS:,} characters")
        yield piece


def _as_json(value: object) -> object:
    match value:
        case None | Undefined():
            return ""
        case bool() | list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case Iterator():
            return _as_json(list(counted(value)))
        case _ if callable(value):
            raise SecurityError("a function as text")
        case _:
            return value


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
