"""Starting instances, looking at them, and telling them what to do."""

import getpass
import re
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import typer

from runtara.protocol.api import EventView, ListReply
from runtara.protocol.errors import DataLost, InvalidInput
from runtara.protocol.messages import Status
from runtara.sdk.client import Client

from . import exits, output
from .options import (
    AsJson,
    InstanceId,
    Labels,
    OfStatus,
    OfWorkflow,
    Tenant,
    WorkflowName,
    parse_input,
    parse_labels,
    settings_for,
)
from .step_table import StepTable

Input = Annotated[
    str | None,
    typer.Option("--input", metavar="JSON|@FILE|-", help="One JSON object by parameter name; - reads standard input."),
]


def client_of(tenant: str | None) -> Client:
    """Commands are recorded with the name of who typed them."""
    actor = re.sub(r"[^A-Za-z0-9_-]", "_", getpass.getuser())[:128] or None
    return Client(settings_for(tenant), actor=actor)


def start(
    workflow: WorkflowName,
    id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The instance's id (default: made up).")] = None,
    input: Input = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, metavar="N", help="Of a registered JSON workflow (default: the last)."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")] = False,
    label: Labels = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Start an instance of WORKFLOW and print its id (with --wait: its result)."""

    async def go() -> None:
        async with client_of(tenant) as client:
            given = parse_input(input, workflow)
            handle = await client.start(workflow, given, id=id, labels=parse_labels(label), version=version)
            if wait:
                value = await handle.result()
                print_result(handle.id, value, as_json=as_json)
            elif as_json:
                output.print_json({"id": handle.id})
            else:
                sys.stdout.write(f"{handle.id}\n")

    exits.run(go(), as_json=as_json)


def list_instances(
    status: OfStatus = None,
    workflow: OfWorkflow = None,
    label: Labels = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(metavar="C", help="Where the last page ended.")] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """List instances, newest first."""

    async def go() -> None:
        async with client_of(tenant) as client:
            page = await client.list(
                status=status, workflow=workflow, labels=parse_labels(label), limit=limit, cursor=cursor
            )
        _print_page(page, as_json=as_json)

    exits.run(go(), as_json=as_json)


def _print_page(page: ListReply, *, as_json: bool) -> None:
    if as_json:
        for view in page.instances:
            output.print_json(output.instance_json(view))
    elif page.instances:
        output.print_instances(page.instances)
    else:
        sys.stderr.write("no instances\n")
    if page.next is not None:
        sys.stderr.write(f"more: --cursor {page.next}\n")


def show(id: InstanceId, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show what is known of an instance."""

    async def go() -> None:
        async with client_of(tenant) as client:
            view, damaged, hosted = await client.get(id), None, None
            if as_json:
                try:
                    view = await client.with_values(view)
                except DataLost as exc:  # all else is known
                    damaged = exc
            if view.status is Status.QUEUED and not as_json:
                hosted = next((_missing(w) for w in await client.workflows() if w.id == view.workflow), None)
        if as_json:
            output.print_json(output.instance_json(view))
        else:
            output.print_instance(view, hosted)
        if damaged is not None:
            raise damaged

    def _missing(workflow: Any) -> str | None:
        return None if workflow.workers else f"no worker hosts {workflow.id}: {output.hosting(workflow)}"

    exits.run(go(), as_json=as_json)


def result(
    id: InstanceId,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds to wait at most.")] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Wait for an instance's end and print its result."""

    async def go() -> None:
        async with client_of(tenant) as client:
            print_result(id, await client.handle(id).result(timeout=timeout), as_json=as_json)

    exits.run(go(), as_json=as_json)


def print_result(id: str, value: object, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"id": id, "result": value})
    elif isinstance(value, str):
        sys.stdout.write(f"{value}\n")
    else:
        sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def log(
    id: InstanceId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the instance has ended.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Print the event log of an instance; of a JSON workflow with `trackEvents`, a table of its steps, too."""

    async def go() -> None:
        async with client_of(tenant) as client:
            events = client.events(id) if follow else client.history(id)
            await _print_events(events, as_json=as_json)

    exits.run(go(), as_json=as_json)


def tail(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Print the events of all instances as they come, until interrupted."""

    async def go() -> None:
        async with client_of(tenant) as client:
            await _print_events(client.tail(), as_json=as_json, with_instance=True)

    exits.run(go(), as_json=as_json)


async def _print_events(events: AsyncIterator[EventView], *, as_json: bool, with_instance: bool = False) -> None:
    console, steps = output.console(), StepTable()
    async for event in events:
        if as_json:
            output.print_json(output.event_json(event))
        else:
            console.print(output.event_line(event, with_instance=with_instance))
            if not with_instance:
                steps.add(event)
    steps.print()


def signal(
    id: InstanceId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="What it carries.")] = "null",
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Send an instance a signal."""
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        exits.fail(InvalidInput(workflow=f"signal {name}", reason=f"not JSON: {exc}"), as_json=as_json)

    async def go() -> None:
        async with client_of(tenant) as client:
            output.print_status(id, await client.signal(id, name, payload), as_json=as_json)

    exits.run(go(), as_json=as_json)
