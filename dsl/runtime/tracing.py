"""Step events: each step's start and end with inputs and outputs, for workflows with `trackEvents`.

Invariants: an event is written once, also if the step is resumed; what it shows of a value is bounded by a fixed rule
and marked where something was left out, so no value is too large to be shown.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from runtara.sdk.context import Context

from .errors import StepError
from .step import Step

EVENT: Final = "step"
MAX_ITEMS: Final = 50  # of an array or object
MAX_BYTES: Final = 8_192  # of a whole value
CUT: Final = "…truncated"  # the key under which is said what was left out


class Trace:
    """The events of one step."""

    def __init__(self, ctx: Context, step: Step) -> None:
        self._ctx = ctx
        self._step = step

    async def started(self, inputs: object) -> None:
        await self._say("started", {"inputs": shortened(inputs)})

    async def ended(self, outputs: object) -> None:
        await self._say("ended", {"outputs": shortened(outputs)})

    async def failed(self, error: StepError) -> None:
        await self._say("failed", {"error": shortened(error.as_seen())})

    async def _say(self, phase: str, fields: Mapping[str, object]) -> None:
        step = self._step
        data = {"phase": phase, "step": step.id, "name": step.name, "type": step.type, **fields}
        await self._ctx.emit(EVENT, data, key=f"{step.key}/{'started' if phase == 'started' else 'ended'}")


def shortened(value: object) -> object:
    """At most 50 elements of each array and object, and 8 KB of JSON in all."""
    cut = _cut(value)
    text = orjson.dumps(cut, option=orjson.OPT_NON_STR_KEYS)
    if len(text) <= MAX_BYTES:
        return cut
    return {CUT: {"bytes": len(text)}, "begins": text[:MAX_BYTES].decode(errors="ignore")}


def _cut(value: object) -> object:
    if isinstance(value, Mapping):
        found = {str(name): _cut(inner) for name, inner in list(value.items())[:MAX_ITEMS]}
        return found if len(value) <= MAX_ITEMS else {**found, CUT: {"fields": len(value) - MAX_ITEMS}}
    if isinstance(value, list):
        items = [_cut(inner) for inner in value[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, {CUT: {"items": len(value) - MAX_ITEMS}}]
    if isinstance(value, str) and len(value) > MAX_BYTES:
        return value[:MAX_BYTES] + CUT
    return value
