"""`runtara connections`: named secrets of a tenant, for the code of its workflows. What is set is never shown again."""

import sys
from typing import Annotated

import typer

from runtara.protocol.configuration import ConnectionView
from runtara.protocol.errors import ExtraMissing

from . import exits, output
from .completion import complete_connection, complete_connection_type
from .connection_fields import check_fields, describe, given_fields, known_types, warn_of_argv
from .instances import client_of
from .options import STDIN, AsJson, Tenant, settings_for

app = typer.Typer(help="Secrets for workflows, by name. What is set is never shown again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The connection's name.", autocompletion=complete_connection)]


@app.command("set")
def set_connection(
    name: Name,
    type: Annotated[
        str,
        typer.Option(
            "--type", metavar="T", help="`connections types` lists them.", autocompletion=complete_connection_type
        ),
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="[-]", help="-: read a JSON object of fields from standard input.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="K[=V]",
            help="A field; may be repeated. K=@FILE takes what is in a file. K alone is asked for, hidden: best for "
            "secrets, since others see a command line and the shell keeps it.",
        ),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="A JSON object of fields; - is standard input.")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Keep a type that is not known here.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Make a connection, or put this in its place. With no field given at a terminal, all are asked for.

    The code of workflows that name it opens it: @workflow(connections=("crm",)).
    """
    if source not in (None, STDIN) or (source is not None and file is not None):
        raise typer.BadParameter("give fields with --field, with --file FILE, or with - for standard input")

    async def go() -> None:
        fields = given_fields(type, field or [], file or source)
        check_fields(type, fields, unchecked=unchecked)
        warn_of_argv(type, field or [])
        async with client_of(tenant) as client:
            view = await client.connections.set(name, type, fields)
        if as_json:
            output.print_json(_json(view))
        else:
            used = f"used by {', '.join(view.used_by)}" if view.used_by else "no workflow names it yet"
            output.console().print(f"set {view.name} ({view.type}); {used}")

    exits.run(go(), as_json=as_json)


@app.command("list")
def list_connections(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List connections, without what they hold."""

    async def go() -> None:
        async with client_of(tenant) as client:
            views = await client.connections.list()
        if as_json:
            for view in views:
                output.print_json(_json(view))
        elif not views:
            sys.stderr.write("no connections\n")
        else:
            output.print_table(
                ("CONNECTION", "TYPE", "USED BY", "SET", "BY"),
                [
                    (view.name, view.type, " ".join(view.used_by), output.for_people(view.set_at), view.set_by or "")
                    for view in views
                ],
            )

    exits.run(go(), as_json=as_json)


@app.command("delete")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Delete a connection. Code that has it open keeps it for a minute at most."""
    if not yes:
        typer.confirm(f"delete connection {name}?", abort=True)

    async def go() -> None:
        async with client_of(tenant) as client:
            await client.connections.delete(name)
        if as_json:
            output.print_json({"name": name})
        else:
            output.console().print(f"deleted {name}")

    exits.run(go(), as_json=as_json)


@app.command("types")
def types(as_json: AsJson = False) -> None:
    """List the types of connections that the agents here know, and their fields."""
    known = known_types()
    if known is None:
        exits.fail(ExtraMissing(extra="agents"), as_json=as_json)
        return
    for id in sorted(known):
        fields = describe(known[id])
        if as_json:
            output.print_json({"type": id, "description": known[id].description, "fields": fields})
            continue
        output.console().print(f"[bold]{id}[/bold]  {known[id].description}")
        for field in fields:
            notes = [note for note in ("secret", "required") if field[note]]
            notes += [f"default {field['default']}"] if field["default"] is not None else []
            output.console().print(f"  {field['name']}  [dim]{', '.join(notes)}[/dim]  {field['description']}")


@app.command("rotate")
def rotate(as_json: AsJson = False) -> None:
    """Seal the connections of all tenants with another key. It works on the database, with the engines' keys.

    In the file `connections.key` a new key is put before the others, which stay there for back-ups: copy the file to
    every engine. Where RUNTARA_CONNECTIONS_KEY is set, put a new key first in it and restart the engines before this.
    """

    async def go() -> None:
        from runtara.engine.connections import seal_again
        from runtara.infra.sealing import SealingKeys

        from .audit import database

        keys = SealingKeys.of(settings_for())
        async with database() as pool:
            await seal_again(pool, keys)  # so that all of them can be opened
            if keys.file is not None:
                keys.draw(another=True)
            key, count = await seal_again(pool, keys)
        if as_json:
            output.print_json({"key": key, "sealed": count, "file": str(keys.file) if keys.file is not None else None})
        else:
            where = f", the first in {keys.file}" if keys.file is not None else ""
            output.console().print(f"sealed {output.counted(count, 'connection')} with key {key}{where}")

    exits.run(go(), as_json=as_json)


def _json(view: ConnectionView) -> dict[str, object]:
    """The fields of `connections list --json`; scripts rely on their names."""
    return {
        "name": view.name, "type": view.type, "used_by": view.used_by, "set_at": output.rfc3339(view.set_at),
        "set_by": view.set_by,
    }  # fmt: skip
