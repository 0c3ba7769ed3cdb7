"""What holds for any document: a legal one has no errors, and no document makes the validator fail."""

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtara.dsl.problems import CODES, errors
from runtara.dsl.validate import validate
from tests.support.documents import CHILDREN, workflows
from tests.support.shop_agent import shop_registry

_AGENTS = shop_registry()
_ANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
_WRONG: st.SearchStrategy[Any] = st.sampled_from(
    (None, True, 0, -1, 1e9, "", "x", "steps.a.outputs", [], {}, [None], {"": {}})
)


@_ANY
@given(workflows())
def test_made_up_workflows_are_legal(document: dict[str, Any]) -> None:
    problems = validate(document, id="w", agents=_AGENTS, children=CHILDREN)
    assert errors(problems) == ()


@_ANY
@given(workflows(max_steps=6), st.data())
def test_no_damage_makes_the_validator_fail(document: dict[str, Any], data: st.DataObject) -> None:
    """Anything may be taken out, doubled or replaced; every problem has a known code and leads into the document."""
    damaged = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        _damage(damaged, data)
    for problem in validate(damaged, id="w", agents=_AGENTS, children=CHILDREN):
        assert problem.name == CODES[problem.code].name
        assert problem.message
        _follow(damaged, problem.pointer)


def _damage(document: dict[str, Any], data: st.DataObject) -> None:
    places = [(holder, key) for holder, key in _places(document)]
    if not places:
        return
    holder, key = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(("drop", "replace", "rename"))):
        case "drop":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(("x", "value", "label", "condition", "__error")))] = holder.pop(key)
        case _:
            holder[key] = data.draw(_WRONG)


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _follow(document: Any, pointer: str) -> None:
    """All but the last part of a pointer is there; the last may be what is missing."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in parts[:-1]:
        assert isinstance(document, dict | list), pointer
        document = document[part] if isinstance(document, dict) else document[int(part)]
