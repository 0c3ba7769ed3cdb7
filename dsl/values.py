"""Values at run time: what a step's mapping comes to over the roots of a scope.

A mapping is plain JSON with expressions in it (`ref`, `template`, conditions). `resolve` gives the plain JSON of it;
`resolve_inputs` leaves out what is missing, for those who tell a missing input from a null one.

Invariants: nothing here changes a scope or what it holds; a path that leads nowhere is `MISSING`, never an error; a
coercion that would lose or guess anything is `CannotCoerce` naming the path.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from runtara.protocol.errors import BadInput

from .coercions import Kind, coerce
from .paths import Path, parse_path


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
Missing = Literal[_Missing.MISSING]
_ALIASES: Final[dict[str, tuple[str, tuple[str | int, ...]]]] = {
    "scenario": ("workflow", ()),
    "error": ("steps", ("__error",)),
}


class CannotCoerce(BadInput):
    """A reference asks for a type that its value is not."""

    template = "{path} cannot be read as {kind}: {reason}"
    path: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The roots that paths begin at: `data`, `variables`, `steps`, `workflow`; `item` or `loop` where there is one."""

    roots: Mapping[str, object]

    def with_roots(self, **roots: object) -> "Scope":
        return Scope({**self.roots, **roots})

    def with_aliases(self) -> dict[str, object]:
        """The roots by all their names, as templates see them."""
        roots = dict(self.roots)
        for alias, (root, parts) in _ALIASES.items():
            found = follow(roots.get(root, MISSING), parts)
            if found is not MISSING:
                roots.setdefault(alias, found)
        return roots

    def find(self, path: Path) -> object:
        """What `path` leads to, or `MISSING`."""
        roots = self.roots
        if path.root in roots:
            return follow(roots[path.root], path.parts)
        root, parts = _ALIASES.get(path.root, (path.root, ()))
        return follow(roots.get(root, MISSING), parts + path.parts)


class Expression(ABC):
    """Something in a mapping that is worked out when the step begins."""

    __slots__ = ()

    @abstractmethod
    def of(self, scope: Scope) -> object:
        """Its value, or `MISSING`."""


@dataclass(frozen=True, slots=True)
class Reference(Expression):
    """What a path leads to; `default` where that is missing or null; as `kind` where one is given."""

    path: Path
    default: object = MISSING
    kind: Kind | None = None

    def of(self, scope: Scope) -> object:
        value = scope.find(self.path)
        if (value is MISSING or value is None) and self.default is not MISSING:
            return self.default
        if self.kind is None or value is MISSING or value is None:
            return value
        try:
            return coerce(value, self.kind)
        except ValueError as exc:
            raise CannotCoerce(path=str(self.path), kind=self.kind, reason=str(exc)) from exc


def ref(path: str, /, *, default: object = MISSING, type: Kind | None = None) -> Reference:
    """A reference. Raises `PathError`."""
    return Reference(parse_path(path), default, type)


def follow(value: object, parts: tuple[str | int, ...]) -> object:
    """Go down `parts` into `value`: keys of objects, indices of arrays (`[-1]` is the last; digits are one, too)."""
    for part in parts:
        if isinstance(value, Mapping):
            value = value.get(part if isinstance(part, str) else str(part), MISSING)
        elif isinstance(value, (list, tuple)):
            value = _element(value, part)
        else:
            return MISSING
    return value


def _element(array: list[object] | tuple[object, ...], part: str | int) -> object:
    if isinstance(part, str):
        if not (part.isascii() and part.isdigit()):
            return MISSING
        part = int(part)
    return array[part] if -len(array) <= part < len(array) else MISSING


def resolve(value: object, scope: Scope) -> object:
    """The plain JSON of a mapping; what is missing is null."""
    if isinstance(value, Expression):
        found = value.of(scope)
        return None if found is MISSING else found
    if isinstance(value, dict):
        return {key: resolve(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, scope) for item in value]
    return value


def resolve_inputs(mapping: Mapping[str, object], scope: Scope) -> dict[str, object]:
    """The inputs of a step by name; those that are missing are left out."""
    inputs = {}
    for name, value in mapping.items():
        found = value.of(scope) if isinstance(value, Expression) else resolve(value, scope)
        if found is not MISSING:
            inputs[name] = found
    return inputs
