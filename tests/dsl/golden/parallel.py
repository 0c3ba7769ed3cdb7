"""parallel.

Compiled from the JSON workflow `parallel` by `runtara dsl compile`: change that one instead.
"""

from typing import Any

from runtara.dsl.runtime import Definition, Run, StepError, case, json_workflow, ref, together
from runtara.sdk import Context

WORKFLOW = Definition(id="parallel", track_events=True)


@json_workflow(WORKFLOW)
async def parallel(ctx: Context, data: Any = None, variables: Any = None) -> Any:
    run = Run(ctx, data, variables, WORKFLOW)
    await run.agent("begin", "probe", "echo", {"value": "begin"})

    async def stock_branch() -> None:
        await run.agent("stock", "probe", "echo", {"value": "stock"})

    async def credit_branch() -> None:
        try:
            await run.agent("credit", "probe", "fails", {"times": 3})
        except StepError as error:
            run.caught(error)
            await run.agent("no-credit", "probe", "echo", {"value": "prepaid"})
        else:
            route = await run.switch(
                "rating",
                ref("steps.credit.outputs"),
                [case("RANGE", {"gte": 5}, "good", route="good"), case("EQ", ["a", "b"], "known", route="good")],
                routes=True,
            )
            if route == "good":
                await run.agent("better", "probe", "echo", {"value": "better"})

    await together(stock_branch(), credit_branch())
    return await run.finish("ship", {"done": True})
