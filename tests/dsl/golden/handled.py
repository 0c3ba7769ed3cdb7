"""handled.

Compiled from the JSON workflow `handled` by `runtara dsl compile`: change that one instead.
"""

from typing import Any

from runtara.dsl.runtime import Definition, Finished, Run, StepError, json_workflow, ref, together
from runtara.sdk import Context

WORKFLOW = Definition(id="handled")


@json_workflow(WORKFLOW)
async def handled(ctx: Context, data: Any = None, variables: Any = None) -> Any:
    run = Run(ctx, data, variables, WORKFLOW)

    async def tell_and_end() -> Any:
        # Tell somebody
        await run.agent("tell", "probe", "echo", {"value": ref("steps.__error.code")}, name="Tell somebody")
        raise await run.error("sorry", "FAILED", "it did not work")

    # Fetch
    try:
        await run.agent("fetch", "probe", "echo", {"value": 1}, name="Fetch")
    except StepError as error:
        run.caught(error)
        return await tell_and_end()
    if not await run.conditional("check", ref("steps.fetch.outputs.ok")):
        await run.log("reject", "info", "rejected")
        return await run.finish("rejected", {"ok": False})
    try:
        await run.agent("store", "probe", "echo", {"value": 2})
    except StepError as error:
        run.caught(error)
        return await tell_and_end()

    async def left_branch() -> None:
        try:
            await run.agent("left", "probe", "echo", {"value": 3})
        except StepError as error:
            run.caught(error)
            raise Finished(await tell_and_end()) from None

    async def right_branch() -> None:
        try:
            await run.agent("right", "probe", "echo", {"value": 4})
        except StepError as error:
            run.caught(error)
            raise Finished(await tell_and_end()) from None

    await together(left_branch(), right_branch())
    try:
        await run.agent("send", "probe", "echo", {"value": 5})
    except StepError as error:
        run.caught(error)
        return await tell_and_end()
    return await run.finish("done", {"ok": True})
