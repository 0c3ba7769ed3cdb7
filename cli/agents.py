"""`runtara agents`: the ready-made steps that are installed here, what they take and give, and trying one.

It needs no platform. Results go to stdout; a capability's own failure is exit code 1, inputs that do not fit are 2.
"""

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.text import Text

from runtara.protocol.errors import InvalidAgent, InvalidConnection, InvalidInput

from . import exits, output
from .completion import complete_agent, complete_capability
from .options import STDIN, AsJson, parse_input

if TYPE_CHECKING:
    from runtara.agents import Agent, AgentError, Capability, Connection

app = typer.Typer(help="Ready-made steps: agents and their capabilities.", no_args_is_help=True)

AgentId = Annotated[str, typer.Argument(metavar="AGENT", help="An agent's id.", autocompletion=complete_agent)]
CapabilityId = Annotated[
    str, typer.Argument(metavar="CAPABILITY", help="A capability's id.", autocompletion=complete_capability)
]


@app.command("list")
def list_agents(as_json: AsJson = False) -> None:
    """List the agents that are installed here, those of other packages too."""

    async def go() -> None:
        from runtara.agents.catalogue import agent_entry

        agents = _all_agents()
        if as_json:
            for agent in agents:
                output.print_json(agent_entry(agent))
            return
        output.print_table(
            ("AGENT", "CAPABILITIES", "CONNECTIONS", "DESCRIPTION"),
            [
                (
                    agent.id,
                    str(len(agent.capabilities)),
                    " ".join(agent.connections),
                    Text(_first_line(agent.description)),
                )
                for agent in agents
            ],
        )

    exits.run(go(), as_json=as_json)


@app.command("show")
def show(
    agent_id: AgentId,
    capability_id: Annotated[
        str | None,
        typer.Argument(metavar="[CAPABILITY]", help="One of its capabilities.", autocompletion=complete_capability),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show an agent and its capabilities, or one capability: inputs, output, errors, connections."""

    async def go() -> None:
        from runtara.agents.catalogue import agent_entry, capability_entry
        from runtara.agents.registry import registry

        if capability_id is None:
            agent = registry().agent(agent_id)
            output.print_json(agent_entry(agent)) if as_json else _print_agent(agent)
        else:
            capability = registry().capability(agent_id, capability_id)
            output.print_json(capability_entry(capability)) if as_json else _print_capability(capability)

    exits.run(go(), as_json=as_json)


@app.command("test")
def try_capability(
    agent_id: AgentId,
    capability_id: CapabilityId,
    input: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="The inputs: one object by name.")
    ] = None,
    connection_file: Annotated[
        Path | None,
        typer.Option(
            "--connection-file",
            metavar="FILE",
            help="A JSON object: the connection's `type`, and its fields beside it; - is standard input.",
            allow_dash=True,
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="S", min=0.001, help="Give up after so many seconds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Call a capability here and now, for real, and print what it gives as JSON."""

    if input == STDIN and str(connection_file) == STDIN:
        raise typer.BadParameter("standard input can be the inputs or the connection, not both")

    async def go() -> None:
        from runtara.agents import AgentError
        from runtara.agents.calls import call
        from runtara.agents.registry import registry

        capability = registry().capability(agent_id, capability_id)
        inputs = parse_input(input, capability.name)
        _check_inputs(capability, inputs)
        connection = None if connection_file is None else _connection(capability, connection_file)
        patience = None if timeout is None else timedelta(seconds=timeout)
        try:
            answer = await call(capability, inputs, connection=connection, timeout=patience)
        except AgentError as exc:
            raise _as_usage(capability, exc) or exc from None
        if as_json or not sys.stdout.isatty():
            output.print_json(answer)
        else:
            output.console().print_json(orjson.dumps(answer).decode())

    exits.run(go(), as_json=as_json)


def _all_agents() -> "list[Agent]":
    """Those that can be loaded; the others are named on stderr."""
    from runtara.agents.registry import registry

    found = []
    for id in registry().ids():
        try:
            found.append(registry().agent(id))
        except InvalidAgent as exc:
            sys.stderr.write(f"warning: {exc}\n")
    return found


def _check_inputs(capability: "Capability", inputs: Mapping[str, object]) -> None:
    """Raises `InvalidInput`, also for names that a workflow would only be warned of: here they are slips."""
    from runtara.agents import AgentError
    from runtara.agents.calls import prepare, unknown_fields
    from runtara.agents.registry import nearest

    unknown = unknown_fields(capability, inputs)
    if unknown:
        known = list(capability.inputs.model_fields)
        hint = nearest(unknown[0], known) or f"; its inputs are {', '.join(known)}"
        raise InvalidInput(workflow=capability.name, reason=f"it has no input {unknown[0]!r}{hint}")
    try:
        prepare(capability, inputs)
    except AgentError as exc:
        raise InvalidInput(workflow=capability.name, reason=exc.message) from None


def _connection(capability: "Capability", file: Path) -> "Connection":
    from runtara.agents.connections import parse_connection

    try:
        text = sys.stdin.read() if str(file) == STDIN else file.read_text()
        fields = orjson.loads(text)
    except (OSError, UnicodeDecodeError, orjson.JSONDecodeError) as exc:
        reason = str(exc) if isinstance(exc, OSError) else f"{file} is not JSON"  # without what it holds
        raise InvalidConnection(type="?", reason=reason) from None
    if not isinstance(fields, dict):
        raise InvalidConnection(type="?", reason="give one JSON object with `type` and the fields")
    only = capability.connections[0] if len(capability.connections) == 1 else None
    type = fields.pop("type", only)
    if not isinstance(type, str):
        kinds = ", ".join(capability.connections) or "none"
        raise InvalidConnection(type="?", reason=f"name its `type`; {capability.name} takes {kinds}")
    return parse_connection(type, fields)


def _as_usage(capability: "Capability", error: "AgentError") -> InvalidConnection | None:
    """A connection that is missing or of the wrong type is the caller's mistake."""
    from runtara.agents.calls import CONNECTION_MISSING, CONNECTION_UNSUITABLE

    if error.code not in (CONNECTION_MISSING, CONNECTION_UNSUITABLE):
        return None
    return InvalidConnection(
        type=" or ".join(capability.connections) or "any", reason=f"{error.message}; give one by --connection-file FILE"
    )


def _print_agent(agent: "Agent") -> None:
    output.console().print(Text.assemble((agent.id, "bold"), "  ", agent.description))
    if agent.connections:
        output.console().print(f"connections: {', '.join(agent.connections)}")
    output.print_table(
        ("CAPABILITY", "INPUTS", "DESCRIPTION"),
        [
            (one.id, " ".join(_names(one)), Text(_first_line(one.description)))
            for one in agent.capabilities.values()
        ],
    )  # fmt: skip


def _names(capability: "Capability") -> list[str]:
    """Its inputs, those first and with a star that it must have."""
    fields = capability.inputs.model_fields.items()
    named = [f"{name}*" for name, info in fields if info.is_required()]
    return named + [name for name, info in fields if not info.is_required()]


def _print_capability(capability: "Capability") -> None:
    from runtara.agents.catalogue import fields, output_schema

    output.console().print(Text.assemble((capability.name, "bold"), "\n", capability.description, "\n"))
    output.print_table(
        ("INPUT", "TYPE", "DEFAULT", "DESCRIPTION"),
        [
            (
                " or ".join(field.names),
                Text(_choices(field.enum)) if field.enum else " or ".join(field.types) or "any",
                Text("required" if field.required else orjson.dumps(field.default).decode()),
                Text(field.description),
            )
            for field in fields(capability)
        ],
    )
    rows = [
        ("output", str(output_schema(capability).get("type", "any"))),
        ("side effects", "yes" if capability.side_effects else "no"),
        ("idempotent", "yes" if capability.idempotent else "no"),
    ]
    if capability.connections:
        need = "required" if capability.connection_required else "optional"
        rows.append(("connection", f"{', '.join(capability.connections)} ({need})"))
    if capability.errors:
        rows.append(("errors", ", ".join(capability.errors)))
    output.console().print()
    output.print_fields(rows)


def _choices(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]
