"""The same command to many instances: found by the filters of `list`, confirmed by a person, sent side by side.

Invariants: what is found first is what is confirmed and commanded, whatever starts meanwhile; an instance that refuses
does not keep the others from theirs; a platform that cannot be reached ends it all.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from runtara.protocol.errors import BadInput, Refused
from runtara.protocol.messages import Status
from runtara.sdk.client import Client

from . import output

PAGE: Final = 1_000
AT_ONCE: Final = 50
SHOWN_IDS: Final = 5
SHOWN_REFUSALS: Final = 10


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """`statuses`: the one that was asked for, or those for which the command makes sense."""

    statuses: tuple[Status, ...]
    workflow: str | None
    labels: dict[str, str]

    @classmethod
    def of(
        cls, status: Status | None, workflow: str | None, labels: dict[str, str], *, default: tuple[Status, ...]
    ) -> "Filters | None":
        """None if nothing was asked for."""
        if status is None and workflow is None and not labels:
            return None
        return cls(statuses=(status,) if status is not None else default, workflow=workflow, labels=labels)


async def find(client: Client, filters: Filters) -> list[str]:
    """The ids of all that match, the newest first within each status."""
    found: dict[str, None] = {}  # one that changes its status meanwhile is found twice
    for status in filters.statuses:
        cursor: str | None = None
        while True:
            page = await client.list(
                status=status, workflow=filters.workflow, labels=filters.labels, limit=PAGE, cursor=cursor
            )
            found.update(dict.fromkeys(view.id for view in page.instances))
            if (cursor := page.next) is None:
                break
    return list(found)


def confirm(verb: str, ids: Sequence[str], *, yes: bool) -> None:
    """Ask, unless told not to. Raises `BadInput` where nobody can be asked."""
    if yes or not ids:
        return
    some = ", ".join(ids[:SHOWN_IDS]) + (", …" if len(ids) > SHOWN_IDS else "")
    question = f"{verb} {_count(ids)} ({some})?"
    if not sys.stdin.isatty():
        raise BadInput(reason=f"{question} nobody is there to ask; pass --yes to do it")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


async def carry_out(
    verb: str, ids: Sequence[str], command: Callable[[str], Awaitable[Status]], *, each: bool, as_json: bool
) -> int:
    """Command all of them, `AT_ONCE` at a time; how many refused. `each`: a line for every one, not a summary."""
    statuses: Counter[Status] = Counter()
    refusals: list[str] = []
    left = iter(ids)
    console = output.error_console()
    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(verb, total=len(ids))

        async def some() -> None:
            for id in left:  # shared: each takes the next
                try:
                    status = await command(id)
                except Refused as exc:
                    refusals.append(f"{id}: {exc}")
                    if as_json:
                        output.print_json({"id": id, "error": exc.to_wire()})
                else:
                    statuses[status] += 1
                    if as_json or each:
                        output.print_status(id, status, as_json=as_json)
                shown.advance(task)

        await _side_by_side(some)
    if not as_json:
        if not each:
            _print_summary(verb, ids, statuses, len(refusals))
        _print_refusals(refusals)
    return len(refusals)


async def _side_by_side(some: Callable[[], Awaitable[None]]) -> None:
    """The first error ends all, and is raised as it is."""
    tasks = [asyncio.ensure_future(some()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _print_summary(verb: str, ids: Sequence[str], statuses: Counter[Status], refused: int) -> None:
    if not ids:
        sys.stderr.write("no instances match\n")
        return
    parts = [f"{count:,} {status.value}" for status, count in sorted(statuses.items())]
    parts += [f"{refused:,} refused"] if refused else []
    output.console().print(f"{verb} {_count(ids)}: {', '.join(parts)}")


def _print_refusals(refusals: list[str]) -> None:
    for refusal in refusals[:SHOWN_REFUSALS]:
        sys.stderr.write(f"refused: {refusal}\n")
    if len(refusals) > SHOWN_REFUSALS:
        sys.stderr.write(f"refused: … and {len(refusals) - SHOWN_REFUSALS:,} more\n")


def _count(ids: Sequence[str]) -> str:
    return f"{len(ids):,} instance" + ("" if len(ids) == 1 else "s")
