"""The fields of a connection as they are typed: on a command line, in a file, at a hidden prompt; and what types have.

Invariants: nothing here writes a value; what is asked for and secret is not echoed; without the extra `agents` no type
is known, and fields are passed on as they are.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from runtara.protocol.connections import Fields, read_fields
from runtara.protocol.errors import InvalidConnection

from . import output
from .options import STDIN

if TYPE_CHECKING:
    from runtara.agents.connections import ConnectionType

FIELD: Final = "--field"
_OF_FILE: Final = "@"


def known_types() -> "Mapping[str, ConnectionType] | None":
    """The types that agents of this installation have; None without the extra `agents`."""
    try:
        from runtara.agents.connections import connection_types
    except ImportError:
        return None
    return connection_types()


def given_fields(type: str, pairs: Sequence[str], source: str | None) -> Fields:
    """From a file or standard input (`source`), and over these the pairs; all are asked for if there are none."""
    fields = _read(type, source) if source is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name:
            raise typer.BadParameter(f"{pair!r} is not K=V", param_hint=FIELD)
        fields[name] = _value(name, value) if equals else _asked(name, hidden=True)
    if fields or not sys.stdin.isatty():
        return fields
    known = (known_types() or {}).get(type)
    return _ask_all(known) if known is not None else {}


def check_fields(type: str, fields: Fields, *, unchecked: bool) -> None:
    """Raises `InvalidConnection` as far as the type is known here; of one that is not, unless `unchecked`."""
    types = known_types()
    if types is None:
        _say("the fields are not checked here: that needs pip install 'runtara[agents]'")
    elif type in types:
        from runtara.agents.connections import parse_connection

        parse_connection(type, fields)
    elif not unchecked:
        known = ", ".join(sorted(types))
        raise InvalidConnection(type=type, reason=f"the types known here are {known}; --unchecked keeps another one")


def warn_of_argv(type: str, pairs: Sequence[str]) -> None:
    """A secret on a command line has been seen by others."""
    known = (known_types() or {}).get(type)
    for pair in pairs:
        name, _, value = pair.partition("=")
        if known is not None and name in known.secret_fields and value and not value.startswith(_OF_FILE):
            _say(f"{name} was on the command line, where others see it and the shell keeps it; {FIELD} {name} asks")


def describe(type: "ConnectionType") -> list[dict[str, object]]:
    """Its fields, for people and programs."""
    return [
        {
            "name": name, "required": field.is_required(), "secret": name in type.secret_fields,
            "default": None if field.is_required() else field.default, "description": field.description or "",
        }
        for name, field in type.model.model_fields.items()
    ]  # fmt: skip


def _read(type: str, source: str) -> Fields:
    try:
        text = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as exc:
        raise typer.BadParameter(f"{source} cannot be read: {exc.strerror}", param_hint="--file") from None
    try:
        return read_fields(text)
    except ValueError:  # whose text may show what is in it
        raise InvalidConnection(type=type, reason="give a JSON object with its fields") from None


def _value(name: str, value: str) -> str:
    if not value.startswith(_OF_FILE):
        return value
    try:
        return Path(value[1:]).read_text()
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"{name}: {value[1:]} is no text file that can be read", param_hint=FIELD) from None


def _ask_all(type: "ConnectionType") -> Fields:
    fields: Fields = {}
    for one in describe(type):
        name, required = str(one["name"]), bool(one["required"])
        value = _asked(name, hidden=bool(one["secret"]), default=None if required else "")
        if value:
            fields[name] = value
    return fields


def _asked(name: str, *, hidden: bool, default: str | None = None) -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{name} has no value, and there is no terminal to ask at", param_hint=FIELD)
    value: str = typer.prompt(name, hide_input=hidden, default=default, show_default=False, err=True)
    return value


def _say(text: str) -> None:
    output.error_console().print(text, style="yellow")
