"""irregular.

Compiled from the JSON workflow `irregular` by `runtara dsl compile`: change that one instead.
"""

from collections.abc import Sequence
from typing import Any

from runtara.dsl.runtime import Definition, Run, by_readiness, json_workflow, ref
from runtara.sdk import Context

WORKFLOW = Definition(id="irregular")


@json_workflow(WORKFLOW)
async def irregular(ctx: Context, data: Any = None, variables: Any = None) -> Any:
    run = Run(ctx, data, variables, WORKFLOW)
    await run.agent("a", "probe", "echo", {"value": "a"})

    async def c_step() -> Sequence[str]:
        if await run.conditional("c", ref("data.ok")):
            return ("e",)
        return ("f",)

    async def b_step() -> Sequence[str]:
        await run.agent("b", "probe", "echo", {"value": "b"})
        return ("d", "e")

    async def f_step() -> Sequence[str]:
        await run.delay("f", 5)
        return ("end",)

    async def e_step() -> Sequence[str]:
        await run.agent("e", "probe", "echo", {"value": "e"})
        return ("end",)

    async def d_step() -> Sequence[str]:
        await run.agent("d", "probe", "echo", {"value": "d"})
        return ("end",)

    await by_readiness(
        ("b", "c"),
        {
            "c": (c_step, ("e", "f")),
            "b": (b_step, ("d", "e")),
            "f": (f_step, ("end",)),
            "e": (e_step, ("end",)),
            "d": (d_step, ("end",)),
        },
    )
    return await run.finish("end", {})
