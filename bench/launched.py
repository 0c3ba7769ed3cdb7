"""What is launched to be measured: one checkpoint."""

from runtara.sdk import Context, workflow


@workflow
async def launched(ctx: Context) -> int:
    await ctx.checkpoint("first", 1)
    return 1
