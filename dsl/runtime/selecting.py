"""What Switch, Filter and GroupBy give out: pure functions of a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..coercions import as_text
from ..conditions import holds
from ..matching import matches
from ..paths import parse_path
from ..values import MISSING, Scope, follow, resolve
from .errors import INVALID_INPUT, StepError

DEFAULT_ROUTE: Final = "default"
NO_KEY: Final = "null"  # the group of the items that have none


@dataclass(frozen=True, slots=True)
class Case:
    """`route` is the edge to go on by."""

    kind: str
    match: object
    output: object
    route: str = DEFAULT_ROUTE


def case(kind: str, match: object, output: object, route: str = DEFAULT_ROUTE) -> Case:
    return Case(kind, match, output, route)


def choose(value: object, cases: Sequence[Case], default: object, scope: Scope) -> tuple[str, object]:
    """Route and output of the first case that matches; without a default, an empty object where none does."""
    for one in cases:
        if matches(value, one.kind, one.match):
            return one.route, resolve(one.output, scope)
    return DEFAULT_ROUTE, {} if default is MISSING else resolve(default, scope)


def filtered(value: object, condition: object, scope: Scope) -> dict[str, object]:
    items = [item for item in array(value) if holds(condition, scope.with_roots(item=item))]
    return {"items": items, "count": len(items)}


def grouped(value: object, key: str, expected: Sequence[str]) -> dict[str, object]:
    path = parse_path(key)
    parts = (path.root, *path.parts)
    groups: dict[str, list[object]] = {name: [] for name in expected}
    for item in array(value):
        found = follow(item, parts)
        name = NO_KEY if found is MISSING or found is None else as_text(found)
        groups.setdefault(name, []).append(item)
    counts = {name: len(items) for name, items in groups.items()}
    return {"groups": groups, "counts": counts, "total_groups": len(groups)}


def array(value: object) -> list[object]:
    """`value`, which must be an array."""
    if isinstance(value, list):
        return value
    kind = "null" if value is None else "an object" if isinstance(value, Mapping) else type(value).__name__
    raise StepError(code=INVALID_INPUT, message=f"its value must be an array, not {kind}")
