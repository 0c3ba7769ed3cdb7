"""Options that many commands have, and what they mean."""

import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from runtara.infra.settings import Settings
from runtara.protocol.errors import InvalidInput
from runtara.protocol.messages import Status

from .completion import complete_instance, complete_workflow

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, for programs.")]
Tenant = Annotated[str | None, typer.Option("--tenant", metavar="ID", help="The tenant to act in (default: default).")]
InstanceId = Annotated[str, typer.Argument(metavar="ID", help="An instance's id.", autocompletion=complete_instance)]
WorkflowName = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="A workflow's name.", autocompletion=complete_workflow)
]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; may be repeated.")]
OfStatus = Annotated[Status | None, typer.Option("--status", help="Only those in this status.")]
OfWorkflow = Annotated[
    str | None,
    typer.Option("--workflow", metavar="W", help="Only those of this workflow.", autocompletion=complete_workflow),
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the log.")]
STDIN: Final = "-"
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def settings_for(tenant: str | None = None, **flags: object) -> Settings:
    return Settings.load({"tenant": tenant, **flags})


def parse_labels(labels: list[str] | None) -> dict[str, str]:
    return parse_pairs(labels, "--label")


def parse_pairs(pairs: list[str] | None, option: str) -> dict[str, str]:
    parsed = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not K=V", param_hint=option)
        parsed[key] = value
    return parsed


def parse_input(text: str | None, workflow: str) -> dict[str, object]:
    """`--input`: JSON, `@FILE`, or `-` for standard input; one object by parameter name."""
    if text is None:
        return {}
    source = sys.stdin.read() if text == STDIN else Path(text[1:]).read_text() if text.startswith("@") else text
    try:
        value = orjson.loads(source)
    except orjson.JSONDecodeError as exc:
        raise InvalidInput(workflow=workflow, reason=f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidInput(workflow=workflow, reason="give one JSON object with the parameters by name")
    return value


def named_version(text: str) -> tuple[str, int | None]:
    """`NAME`, or `NAME@3`."""
    name, at, version = text.partition("@")
    if at and not re.fullmatch(r"[1-9]\d{0,8}", version):
        raise typer.BadParameter(f"{version!r} is no version: write NAME@3", param_hint="NAME")
    return name, int(version) if at else None


def parse_moment(text: str | None, option: str) -> int | None:
    """RFC 3339 in microseconds since 1970; a time without a zone could mean several."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} is not a time like 2026-11-22T03:00:00Z", param_hint=option)
    return round(moment.timestamp() * 1_000_000)


def parse_age(text: str, option: str) -> timedelta:
    """`45s`, `90m`, `12h`, `30d` or `8w`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not an age like 30d (units: s, m, h, d, w)", param_hint=option)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
