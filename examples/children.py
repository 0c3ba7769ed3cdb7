"""Children: a report over many regions, each a workflow of its own, joined when all have ended.

runtara dev examples/children.py
runtara start report --input '{"regions": ["north", "south", "east", "west"]}' --wait
runtara list --workflow region
"""

import asyncio

from runtara.sdk import ChildFailed, Context, step, workflow


@step
async def count(region: str) -> int:
    if region == "atlantis":
        raise LookupError("there is no such region")
    return len(region) * 100


@workflow
async def region(ctx: Context, name: str) -> int:
    """Runs wherever there is room, is retried and audited by itself."""
    return await count(name)


@workflow
async def report(ctx: Context, regions: list[str]) -> dict[str, int | str]:
    """The same call is the same child in every attempt, in whatever order the branches run."""

    async def one(name: str) -> int | str:
        try:
            return await ctx.call(region, name=name)
        except ChildFailed as exc:
            return str(exc)

    return dict(zip(regions, await asyncio.gather(*map(one, regions)), strict=True))
