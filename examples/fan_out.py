"""Fan out with `asyncio.gather`: branches may end in any order, each gets its own results back after a crash.

runtara dev examples/fan_out.py
runtara start fan-out --input '{"cities": ["Oslo", "Quito", "Hanoi"]}' --wait
"""

import asyncio

from runtara.sdk import Context, step, workflow


@step
async def forecast(city: str) -> str:
    await asyncio.sleep(0.1 / len(city))
    return f"{city}: sunny"


@step
async def translate(text: str) -> str:
    return text.replace("sunny", "soleado")


@workflow(name="fan-out")
async def fan_out(ctx: Context, cities: list[str]) -> list[str]:
    async def branch(city: str) -> str:
        return await translate(await forecast(city))

    return await asyncio.gather(*(branch(city) for city in cities))
