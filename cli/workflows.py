"""`runtara workflow`: what can be started, and who hosts it."""

from typing import Annotated

import msgspec
import typer

from runtara.protocol.api import WorkflowView
from runtara.protocol.configuration import DefinitionView
from runtara.protocol.errors import UnknownWorkflow
from runtara.sdk.client import Client

from . import exits, output
from .completion import complete_workflow
from .options import AsJson, Tenant, WorkflowName, named_version, settings_for

app = typer.Typer(help="Workflows that were registered.", no_args_is_help=True)


@app.command("list")
def list_workflows(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List the workflows that can be started."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            views = await client.workflows()
        if as_json:
            for view in views:
                output.print_json(_json(view))
        else:
            output.print_workflows(views)

    exits.run(go(), as_json=as_json)


@app.command("show")
def show(name: WorkflowName, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show a workflow: its parameters, its options, its workers; of a registered JSON workflow its versions."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            view = next((view for view in await client.workflows() if view.id == name), None)
            versions = await client.definitions.list(name)
        if view is None:
            raise UnknownWorkflow(workflow=name, hint="")
        if as_json:
            output.print_json(_json(view) | {"versions": [_version_json(one) for one in versions]})
        else:
            output.print_workflows([view])
            for one in versions:
                by = f" by {one.registered_by}" if one.registered_by else ""
                started = "  (started with it)" if one.is_current else ""
                text = f"version {one.version}, registered {output.for_people(one.registered_at)}{by}{started}"
                output.console().print(text)
            output.console().print(view.description)
            output.console().print_json(bytes(view.parameters).decode())

    exits.run(go(), as_json=as_json)


@app.command("delete")
def delete(
    name: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW",
            help="A workflow, or a version of a registered one: NAME@2.",
            autocompletion=complete_workflow,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Take a workflow off the list. Its instances stay; a worker that hosts it registers it again.

    NAME@2 deletes that version of a registered JSON workflow, unless it is in use.
    """
    name, version = named_version(name)
    if not yes:
        typer.confirm(f"forget workflow {name}{'' if version is None else f'@{version}'}?", abort=True)

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            if version is None:
                await client.forget_workflow(name)
            else:
                await client.definitions.delete(name, version=version)

    exits.run(go(), as_json=as_json)


def _version_json(view: DefinitionView) -> dict[str, object]:
    return msgspec.structs.asdict(view) | {"registered_at": output.rfc3339(view.registered_at)}


def _json(view: WorkflowView) -> dict[str, object]:
    document: dict[str, object] = msgspec.structs.asdict(view)
    document["registered_at"] = output.rfc3339(view.registered_at)
    document["hosted_until"] = output.rfc3339(view.hosted_until)
    return document
