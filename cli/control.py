"""`runtara pause|resume|cancel|retry`: of instances by their ids, or of all that the filters of `list` find."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from runtara.protocol.messages import Status
from runtara.sdk.client import Client

from . import exits, output
from .bulk import Filters, carry_out, confirm, find
from .completion import complete_instance
from .instances import client_of
from .options import AsJson, Labels, OfStatus, OfWorkflow, Reason, Tenant, parse_labels

InstanceIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Ids of instances; or none, and filters.", autocompletion=complete_instance),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With filters: do not ask.")]

ACTIVE = (Status.QUEUED, Status.RUNNING, Status.SLEEPING, Status.WAITING)
Command = Callable[[Client, str], Coroutine[Any, Any, Status]]


def pause(
    ids: InstanceIds = None,
    status: OfStatus = None,
    workflow: OfWorkflow = None,
    label: Labels = None,
    yes: Yes = False,
    reason: Reason = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Pause instances: what runs stops at its next operation. By ids, or with filters all that is active."""
    filters = Filters.of(status, workflow, parse_labels(label), default=ACTIVE)
    _run("pause", ids, filters, lambda client, id: client.pause(id, reason=reason), tenant, yes, as_json)


def resume(
    ids: InstanceIds = None,
    status: OfStatus = None,
    workflow: OfWorkflow = None,
    label: Labels = None,
    yes: Yes = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Resume paused instances. By ids, or with filters all that is paused."""
    filters = Filters.of(status, workflow, parse_labels(label), default=(Status.PAUSED,))
    _run("resume", ids, filters, lambda client, id: client.resume(id), tenant, yes, as_json)


def cancel(
    ids: InstanceIds = None,
    status: OfStatus = None,
    workflow: OfWorkflow = None,
    label: Labels = None,
    yes: Yes = False,
    reason: Reason = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Cancel instances. By ids, or with filters all that has not ended."""
    filters = Filters.of(status, workflow, parse_labels(label), default=(*ACTIVE, Status.PAUSED))
    _run("cancel", ids, filters, lambda client, id: client.cancel(id, reason=reason), tenant, yes, as_json)


def retry(
    ids: InstanceIds = None,
    status: OfStatus = None,
    workflow: OfWorkflow = None,
    label: Labels = None,
    yes: Yes = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Let failed or cancelled instances go on from their last good key. By ids, or with filters all that failed."""
    filters = Filters.of(status, workflow, parse_labels(label), default=(Status.FAILED,))
    _run("retry", ids, filters, lambda client, id: client.retry(id), tenant, yes, as_json)


def _run(
    verb: str,
    ids: list[str] | None,
    filters: Filters | None,
    command: Command,
    tenant: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(ids) == (filters is not None):
        problem = "give either ids or filters" if ids else "give ids, or filters: --status, --workflow, --label"
        raise typer.BadParameter(problem, param_hint="ID")

    async def go() -> None:
        async with client_of(tenant) as client:
            if ids is not None and len(ids) == 1:
                output.print_status(ids[0], await command(client, ids[0]), as_json=as_json)
                return
            targets = ids or []
            if filters is not None:
                targets = await find(client, filters)
                confirm(verb, targets, yes=yes)
            refused = await carry_out(verb, targets, lambda id: command(client, id), each=bool(ids), as_json=as_json)
        if refused:
            raise typer.Exit(exits.CONFLICT)

    exits.run(go(), as_json=as_json)
