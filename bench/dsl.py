"""What JSON workflows cost before they run. Measured in this process: no platform takes part."""

import time

from runtara.agents.registry import registry
from runtara.dsl.problems import errors
from runtara.dsl.validate import validate

from .cases import Case, OurBench
from .documents import chain
from .measure import Line, line, percentile

STEPS = 100
BUDGET_VALIDATE_MS = 20.0


async def validation(bench: OurBench) -> list[Line]:
    document, agents = chain(STEPS), registry()
    medians = []
    for _ in range(bench.runs):
        seconds = []
        for _ in range(bench.scaled(200)):
            began = time.perf_counter()
            problems = validate(document, id="chain", agents=agents)
            seconds.append(time.perf_counter() - began)
            assert errors(problems) == (), problems
        medians.append(percentile(seconds, 50) * 1_000)
    return [line(f"JSON: validate {STEPS} steps, p50", "ms", medians, budget=BUDGET_VALIDATE_MS, best="low")]


DSL: dict[str, Case] = {"dsl-validate": validation}
