"""Running a body turn by turn as long as a condition holds.

Invariants: a turn's keys hold its number; the time allowed for all of them is in the log.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from runtara.sdk.context import Context
from runtara.sdk.limits import within

Turn = Callable[[int, dict[str, object]], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class LoopOptions:
    max_iterations: int
    timeout_ms: int | None


async def turn_by_turn(
    ctx: Context, key: str, goes_on: Callable[[dict[str, object]], bool], turn: Turn, options: LoopOptions
) -> dict[str, object]:
    """`{iterations, outputs}`, the outputs of the last turn. Raises what a turn fails with, or `StepTimeout`."""

    async def turns() -> dict[str, object]:
        loop: dict[str, object] = {"index": 0, "outputs": None}
        for index in range(options.max_iterations):
            if not goes_on(loop):
                return {"iterations": index, "outputs": loop["outputs"]}
            with ctx.scope(str(index)):
                outputs = await turn(index, loop)
            loop = {"index": index + 1, "outputs": outputs}
        return {"iterations": options.max_iterations, "outputs": loop["outputs"]}

    with ctx.scope(key):
        if options.timeout_ms is None:
            return await turns()
        return await within(ctx, "timeout", timedelta(milliseconds=options.timeout_ms), turns)
