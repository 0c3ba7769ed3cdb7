"""Branches side by side: all at once (`together`), or each step as soon as those before it have ended (`by_readiness`).

Invariants: what one branch fails with ends the others, and comes out as itself; a step whose every way in was not taken
does not run, and so on behind it; a step runs once.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NoReturn

Targets = Sequence[str]
StepFunction = Callable[[], Coroutine[Any, Any, Targets]]


async def together(*branches: Coroutine[Any, Any, None]) -> None:
    """Run them all. Raises what the first of those that failed did."""
    try:
        async with asyncio.TaskGroup() as group:
            for branch in branches:
                group.create_task(branch)
    except BaseExceptionGroup as failures:
        _raise_first(failures)


async def by_readiness(first: Targets, steps: Mapping[str, tuple[StepFunction, Targets]]) -> set[str]:
    """Run `steps` in parallel as far as their order allows. Gives the places that were gone on to.

    Args:
        first: where it begins.
        steps: a step's function, which returns where it goes on, and all places where it might. A place that is no
            step of these is outside, and nothing is run for it.
    """
    ways_in = Counter(target for _, targets in steps.values() for target in targets)
    ways_in.update(first)
    taken: set[str] = set()

    async def run(id: str) -> None:
        function, targets = steps[id]
        chosen = set(await function())
        arrive(targets, chosen)

    def arrive(targets: Iterable[str], chosen: set[str]) -> None:
        """Each of `targets` has one way in less to wait for."""
        for target in targets:
            if target in chosen:
                taken.add(target)
            if target not in steps:
                continue
            ways_in[target] -= 1
            if ways_in[target] == 0 and target in taken:
                group.create_task(run(target))
            elif ways_in[target] == 0:
                arrive(steps[target][1], set())

    try:
        async with asyncio.TaskGroup() as group:
            arrive(first, set(first))
    except BaseExceptionGroup as failures:
        _raise_first(failures)
    return taken


def _raise_first(failures: BaseExceptionGroup[BaseException]) -> NoReturn:
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    raise found from None
