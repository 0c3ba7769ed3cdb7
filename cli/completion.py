"""Tab completion of names, of instances and all that has one, where a platform can be reached quickly."""

import asyncio
import contextlib
from typing import Final

import typer

SECONDS: Final = 1.0
MAX_IDS: Final = 50


def complete_instance(incomplete: str) -> list[str]:
    return [name for name in _ask("instances") if name.startswith(incomplete)]


def complete_workflow(incomplete: str) -> list[str]:
    return [name for name in _ask("workflows") if name.startswith(incomplete)]


def complete_schedule(incomplete: str) -> list[str]:
    return [name for name in _ask("schedules") if name.startswith(incomplete)]


def complete_image(incomplete: str) -> list[str]:
    return [name for name in _ask("images") if name.startswith(incomplete)]


def complete_connection(incomplete: str) -> list[str]:
    return [name for name in _ask("connections") if name.startswith(incomplete)]


def complete_connection_type(incomplete: str) -> list[str]:
    types: list[str] = []
    with contextlib.suppress(Exception):  # or the extra is not installed
        from runtara.agents.connections import connection_types

        types = [name for name in connection_types() if name.startswith(incomplete)]
    return types


def complete_agent(incomplete: str) -> list[str]:
    ids: list[str] = []
    with contextlib.suppress(Exception):
        from runtara.agents.registry import registry

        ids = [id for id in registry().ids() if id.startswith(incomplete)]
    return ids


def complete_capability(ctx: typer.Context, incomplete: str) -> list[str]:
    """Of the agent that stands before it."""
    ids: list[str] = []
    with contextlib.suppress(Exception):
        from runtara.agents.registry import registry

        agent = registry().agent(str(ctx.params.get("agent_id")))
        ids = [id for id in agent.capabilities if id.startswith(incomplete)]
    return ids


def _ask(what: str) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(Exception):  # completion never disturbs a command line with an error
        names = asyncio.run(_names(what))
    return names


async def _names(what: str) -> list[str]:
    from runtara.sdk.client import Client

    async with asyncio.timeout(SECONDS), Client() as client:
        if what == "workflows":
            return [view.id for view in await client.workflows()]
        if what == "schedules":
            return [view.schedule.name for view in (await client.schedules.list(limit=MAX_IDS)).schedules]
        if what == "images":
            return sorted({view.image.name for view in await client.images.list()})
        if what == "connections":
            return [view.name for view in await client.connections.list()]
        return [view.id for view in (await client.list(limit=MAX_IDS)).instances]
