"""Runs documents on the platform in memory."""

from collections.abc import Awaitable, Callable
from typing import Any

from runtara.dsl.load import load_workflow
from runtara.sdk.client import Handle
from runtara.sdk.testing import MemoryPlatform
from runtara.sdk.workflow import Workflow

Drive = Callable[[MemoryPlatform, Handle[Any]], Awaitable[object]]


async def result_of(
    document: object, data: object = None, *, id: str = "doc", hosts: tuple[Workflow[..., Any], ...] = (),
    drive: Drive | None = None, **input: object,
) -> Any:  # fmt: skip
    """What a document comes to."""
    return (await run(document, data, id=id, hosts=hosts, drive=drive, **input))[0]


async def run(
    document: object, data: object = None, *, id: str = "doc", hosts: tuple[Workflow[..., Any], ...] = (),
    drive: Drive | None = None, **input: object,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """What it comes to, and its log."""
    workflow = load_workflow(document, id=id)
    async with MemoryPlatform(*hosts) as platform:
        handle = await platform.start(workflow, {} if data is None else data, id="one", **input)
        if drive is not None:
            await drive(platform, handle)
        try:
            return await handle.result(), platform.log("one")
        finally:
            running.log = platform.log("one")


class running:
    """What the last run left behind, also if it failed."""

    log: list[Any] = []


def keys_of(log: list[Any], *types: str) -> list[str]:
    return [event.key for event in log if event.key is not None and (not types or event.type in types)]
