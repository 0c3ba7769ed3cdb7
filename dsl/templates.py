"""Templates in values: a Jinja2 text over the roots of the scope, in the sandbox of `runtara.agents.templates`.

Invariant: whatever goes wrong is `TemplateFailed`; for what a template may do and reach, see there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from jinja2 import Environment, TemplateSyntaxError, nodes

from runtara.agents import AgentError
from runtara.agents import templates as sandbox
from runtara.protocol.errors import BadInput

from .values import Expression, Scope

_SHOWN: Final = 60  # characters of a template in an error


class TemplateFailed(BadInput):
    template = "the template {text!r} cannot be used: {reason}"
    text: str
    reason: str


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
        return sandbox.render(text, cast(Mapping[str, Any], roots))
    except AgentError as exc:
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        raise TemplateFailed(text=shown, reason=exc.message) from None


def syntax(text: str) -> nodes.Template:
    """The template's syntax tree. Raises `TemplateSyntaxError`, also for filters and tests that do not exist."""
    try:
        sandbox.parsed(text)
    except AgentError as exc:
        line = exc.attributes.get("line")
        raise TemplateSyntaxError(exc.message, lineno=line if isinstance(line, int) else 1) from None
    return _plain().parse(text)


@lru_cache(maxsize=1)
def _plain() -> Environment:
    """It only reads: what it makes is never rendered."""
    return Environment(autoescape=False)
