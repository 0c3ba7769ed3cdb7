"""Places in a document: from where a model has something to a JSON Pointer into the document as it was written.

The model and the text differ in a few ways (two generations' spellings, JSON Schema's `properties`, choices of a
union): a place is walked in the text, so that the pointer leads to something that is there, or to where it is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

SPELLINGS: Final[Mapping[str, str]] = {
    "childScenarioId": "childWorkflowId",
    "duration_ms": "durationMs",
    "debugMode": "trackEvents",
}
"""Other spellings of a field → the one that the model knows."""

_OTHERS: Final = {known: other for other, known in SPELLINGS.items()}

Place = tuple[str | int, ...]


def pointer(place: Sequence[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)


def locate(raw: object, place: Sequence[str | int], *, missing: bool = False) -> Place:
    """`place` as it is in `raw`. What is not there is a choice of the model's and left out; with `missing`, the last
    part is what should be there."""
    found: list[str | int] = []
    here = raw
    last = len(place) - 1
    for position, part in enumerate(place):
        steps = _steps(here, part)
        for step in steps:
            here = here[step]  # type: ignore[index]
            found.append(step)
        if not steps and missing and position == last:
            found.append(part)
    return tuple(found)


def _steps(here: object, part: str | int) -> list[str | int]:
    if isinstance(here, dict):
        other = _OTHERS.get(str(part))
        properties = here.get("properties")
        if part in here:
            return [part]
        if other in here:
            return [other]  # type: ignore[list-item]
        if isinstance(properties, dict) and part in properties:
            return ["properties", part]
    if isinstance(here, list) and isinstance(part, int) and -len(here) <= part < len(here):
        return [part]
    return []


def without(raw: object, places: Sequence[Place]) -> object:
    """A copy that has nothing at those places."""
    here = {place[0] for place in places if len(place) == 1}
    deeper: dict[str | int, list[Place]] = {}
    for place in places:
        if len(place) > 1 and place[0] not in here:
            deeper.setdefault(place[0], []).append(place[1:])
    if isinstance(raw, dict):
        return {name: _without(inner, deeper.get(name)) for name, inner in raw.items() if name not in here}
    if isinstance(raw, list):
        return [_without(inner, deeper.get(index)) for index, inner in enumerate(raw) if index not in here]
    return raw


def _without(raw: object, places: Sequence[Place] | None) -> object:
    return without(raw, places) if places else raw
