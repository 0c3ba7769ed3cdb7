"""`runtara schedule`: starts by the clock."""

import sys
from typing import Annotated, Literal

import typer

from runtara.protocol.errors import BadInput
from runtara.sdk.client import Client

from . import exits, schedule_output
from .completion import complete_schedule
from .instances import Input, client_of, print_result
from .options import (
    AsJson,
    Labels,
    OfWorkflow,
    Tenant,
    WorkflowName,
    parse_age,
    parse_input,
    parse_labels,
    settings_for,
)
from .output import print_json

app = typer.Typer(help="Schedules: starts by the clock.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule's name.", autocompletion=complete_schedule)]
Cron = Annotated[
    str | None,
    typer.Option(
        "--cron",
        metavar="EXPR",
        help="Minute, hour, day of month, month, day of week: '0 3 * * *', '*/10 8-18 * * MON-FRI'; also L (last day), "
        "LW (last weekday), FRI#2 (second Friday), 5L (last Friday).",
    ),
]
Every = Annotated[
    str | None, typer.Option("--every", metavar="INTERVAL", help="Instead: 45s, 90m, 12h, 30d or 8w, from now.")
]
Zone = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="Where the expression's times are read, as Europe/Zurich.")
]
Overlap = Annotated[
    Literal["skip", "allow"],
    typer.Option("--overlap", help="A start that is due while an earlier instance has not ended."),
]
CatchUp = Annotated[
    Literal["last", "all", "none"],
    typer.Option("--catch-up", help="Which of the starts are made up for that were missed while no engine ran."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name; its instances' ids begin with it.")],
    workflow: WorkflowName,
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = "UTC",
    input: Input = None,
    label: Labels = None,
    overlap: Overlap = "skip",
    catch_up: CatchUp = "last",
    paused: Annotated[bool, typer.Option("--paused", help="Nothing is due before `resume`.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Give one of that name this definition.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Start WORKFLOW by the clock. The same again changes nothing; another definition needs --replace."""

    async def go() -> None:
        async with client_of(tenant) as client:
            view = await client.schedules.create(
                name, workflow, parse_input(input, workflow), cron=cron,
                every=parse_age(every, "--every") if every is not None else None, timezone=timezone,
                labels=parse_labels(label), overlap=overlap, catch_up=catch_up, paused=paused, replace=replace,
            )  # fmt: skip
        schedule_output.print_next(view, as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("list")
def list_schedules(
    workflow: OfWorkflow = None,
    label: Labels = None,
    paused: Annotated[bool | None, typer.Option("--paused/--active", help="Only those that are, or are not.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(metavar="C", help="Where the last page ended.")] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """List schedules, by name."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            page = await client.schedules.list(
                workflow=workflow, paused=paused, labels=parse_labels(label), limit=limit, cursor=cursor
            )
        schedule_output.print_page(page, as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("show")
def show(name: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show a schedule. What it starts, when it is due, what it started last, what last kept it from starting."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            schedule_output.print_schedule(await client.schedules.get(name), as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("pause")
def pause(name: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Start nothing until `resume`. What runs goes on."""

    async def go() -> None:
        async with client_of(tenant) as client:
            schedule_output.print_next(await client.schedules.pause(name), as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("resume")
def resume(name: Name, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Go on with the next due time. What was missed meanwhile is not made up for."""

    async def go() -> None:
        async with client_of(tenant) as client:
            schedule_output.print_next(await client.schedules.resume(name), as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("trigger")
def trigger(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Start one now, and print its id (with --wait: its result). Also if it is paused, or an earlier one still runs."""

    async def go() -> None:
        async with client_of(tenant) as client:
            id = await client.schedules.trigger(name)
            if wait:
                print_result(id, await client.handle(id).result(), as_json=as_json)
            elif as_json:
                print_json({"id": id})
            else:
                sys.stdout.write(f"{id}\n")

    exits.run(go(), as_json=as_json)


@app.command("delete")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Delete a schedule. The instances that it started stay as they are."""
    question = f"delete schedule {name}?"
    if not yes and not sys.stdin.isatty():
        exits.fail(BadInput(reason=f"{question} nobody is there to ask; pass --yes to do it"), as_json=as_json)
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(1)

    async def go() -> None:
        async with client_of(tenant) as client:
            await client.schedules.delete(name)
        if as_json:
            print_json({"name": name, "deleted": True})
        else:
            sys.stdout.write(f"{name}  deleted\n")

    exits.run(go(), as_json=as_json)
