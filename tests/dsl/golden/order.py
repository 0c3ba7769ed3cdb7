"""An order.

Compiled from the JSON workflow `order` by `runtara dsl compile`: change that one instead.
"""

from typing import Any

from runtara.dsl.runtime import (
    Definition,
    Run,
    SplitOptions,
    StepError,
    all_of,
    check,
    compare,
    json_workflow,
    ref,
    template,
)
from runtara.sdk import Context

WORKFLOW = Definition(
    id="order",
    description="Large orders are approved by somebody.",
    input_schema={"order": {"type": "object", "required": True}},
    variables={"limit": 100},
    variable_types={"limit": "integer"},
)


async def lines_item(run: Run) -> Any:
    await run.agent("check", "probe", "add", {"number": ref("item.amount", default=1, type="integer")}, max_retries=1)
    return await run.finish("end", {"amount": ref("steps.check.outputs"), "of": ref("variables.order")})


@json_workflow(WORKFLOW)
async def order(ctx: Context, data: Any = None, variables: Any = None) -> Any:
    run = Run(ctx, data, variables, WORKFLOW)
    # Fetch the order
    await run.agent(
        "fetch",
        "probe",
        "echo",
        {
            "value": {
                "order": {"id": ref("data.order.id")},
                "note": template(
                    "Dear {{ data.order.customer }},\nthank you. thank you. thank you. thank you. thank you. thank "
                    "you. thank you. thank you. thank you. thank you. thank you. thank you. "
                ),
            },
        },
        name="Fetch the order",
    )
    # Is it large?
    if not await run.conditional(
        "large",
        all_of(
            compare(ref("steps.fetch.outputs.order.id"), "GT", ref("variables.limit")),
            check("IS_DEFINED", ref("data.order.lines")),
        ),
        name="Is it large?",
    ):
        return await run.finish("small", {"way": "small"})
    # Each line
    await run.split(
        "lines",
        ref("data.order.lines"),
        lines_item,
        variables={"order": ref("data.order.id")},
        options=SplitOptions(parallelism=5),
        name="Each line",
    )
    # Somebody approves
    try:
        await run.wait_for_signal(
            "approve",
            timeout_ms=86400000,
            response_schema={"ok": {"type": "boolean", "required": True}},
            name="Somebody approves",
        )
    except StepError as error:
        run.caught(error)
        await run.log("late", "warn", "nobody approved", {"code": ref("steps.__error.code")})
    return await run.finish("end", {"way": "large", "lines": ref("steps.lines.outputs")})
