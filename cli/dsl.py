"""`runtara dsl`: JSON workflows checked, drawn and described. Nothing here needs a platform."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from runtara.protocol.errors import InvalidTarget, RuntaraError

from . import exits, output
from .options import STDIN, AsJson, Tenant

if TYPE_CHECKING:
    from runtara.dsl.model import Graph
    from runtara.dsl.problems import Problem

app = typer.Typer(help="JSON workflows: checked, compiled, run, drawn.", no_args_is_help=True)

_STDIN_ID: Final = "stdin"
_COLOURS: Final = {"error": "red", "warning": "yellow"}
_OF_THE_WHOLE: Final = ""

File = Annotated[Path, typer.Argument(metavar="FILE", help="A JSON workflow; - reads one.", dir_okay=False)]
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="JSON workflows; - reads one.", dir_okay=False)]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="Where to write it (stdout).")
]


class Format(StrEnum):
    MERMAID = "mermaid"
    SVG = "svg"


@app.command("validate")
def validate(files: Files, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Say everything that is wrong with JSON workflows. Children are looked for beside each FILE.

    Exit code 1 if one has errors; warnings alone are no reason.
    """
    try:
        found = [(file, _problems(file)) for file in files]
    except RuntaraError as exc:
        exits.fail(exc, as_json=as_json)
        return
    for file, problems in found:
        if as_json:
            output.print_json(verdict_json(file, problems))
        else:
            print_problems(file, problems)
    if any(problem.severity == "error" for _, problems in found for problem in problems):
        raise typer.Exit(exits.FAILED)


@app.command("schema")
def schema(out: Out = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Print the JSON Schema of a JSON workflow, for editors."""
    import json

    try:
        from runtara.dsl.schema import document_schema
    except RuntaraError as exc:
        exits.fail(exc, as_json=as_json)
        return
    document = document_schema()
    _write(json.dumps(document, indent=None if as_json else 2, ensure_ascii=False) + "\n", out)


@app.command("graph")
def graph(
    file: File,
    format: Annotated[Format, typer.Option("--format", help="Mermaid text, or an SVG drawing.")] = Format.MERMAID,
    out: Out = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Draw a JSON workflow. Its shape must be right; what else is wrong does not matter here."""
    try:
        id, found = _graph(file)
        from runtara.dsl.graph import mermaid, svg
    except RuntaraError as exc:
        exits.fail(exc, as_json=as_json)
        return
    drawn = mermaid(found) if format is Format.MERMAID else svg(found, title=found.name or id)
    if as_json:
        output.print_json({"workflow": id, "format": format.value, "graph": drawn})
    else:
        _write(drawn, out)


def workflow_id(file: Path) -> str:
    """A JSON workflow is called as its file is."""
    return _STDIN_ID if str(file) == STDIN else file.stem


def read_text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == STDIN else file.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidTarget(target=str(file), reason=f"it is no UTF-8 text ({exc})") from exc
    except OSError as exc:
        raise InvalidTarget(target=str(file), reason=str(exc.strerror or exc)) from exc


def _problems(file: Path) -> "Sequence[Problem]":
    from runtara.agents.registry import registry
    from runtara.dsl.files import Siblings, parse_text
    from runtara.dsl.validate import validate

    document, problems = parse_text(read_text(file))
    if document is None and problems:
        return problems
    folder = Path.cwd() if str(file) == STDIN else file.parent
    found = validate(
        document, id=workflow_id(file), agents=registry(), children=Siblings(folder), children_complete=False
    )
    return (*problems, *found)


def _graph(file: Path) -> "tuple[str, Graph]":
    from runtara.dsl.files import parse_text
    from runtara.dsl.parse import parse
    from runtara.dsl.problems import errors

    document, problems = parse_text(read_text(file))
    parsed = parse(document, id=workflow_id(file))
    wrong = errors((*problems, *parsed.problems))
    if parsed.graph is None or wrong:
        more = f" (and {len(wrong) - 1} more: `runtara dsl validate {file}`)" if len(wrong) > 1 else ""
        raise InvalidTarget(
            target=str(file), reason=f"{wrong[0].code} at {wrong[0].pointer or '/'}: {wrong[0].message}{more}"
        )
    return workflow_id(file), parsed.graph


def _write(text: str, out: Path | None) -> None:
    if out is None or str(out) == STDIN:
        sys.stdout.write(text)
        return
    out.write_text(text, "utf-8")


def verdict_json(file: Path, problems: "Sequence[Problem]") -> dict[str, object]:
    """One line of `validate --json`; scripts rely on its names."""
    errors = sum(problem.severity == "error" for problem in problems)
    return {
        "file": str(file),
        "workflow": workflow_id(file),
        "valid": errors == 0,
        "errors": errors,
        "warnings": len(problems) - errors,
        "problems": [problem.as_json() for problem in problems],
    }


def print_problems(file: Path, problems: "Sequence[Problem]") -> None:
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    counts = [output.counted(count, noun) for count, noun in ((errors, "error"), (warnings, "warning")) if count]
    console = output.console()
    head = Text(f"{file}: ", style="bold")
    head.append("valid" if not errors else "not valid", style="green" if not errors else "red")
    console.print(head.append(f" ({', '.join(counts)})" if counts else ""))
    by_step: dict[str, list[Problem]] = {}
    for problem in problems:
        by_step.setdefault(problem.step or _OF_THE_WHOLE, []).append(problem)
    for step, of_step in sorted(by_step.items(), key=lambda item: item[0] != _OF_THE_WHOLE):
        console.print(Text(f"  step {step}" if step else "  the workflow", style="bold"))
        for problem in sorted(of_step, key=lambda problem: problem.severity != "error"):
            console.print(_line(problem))


def _line(problem: "Problem") -> Text:
    line = Text("    ")
    line.append(f"{problem.severity.value:<7} {problem.code}", style=_COLOURS[problem.severity.value])
    line.append(f"  {problem.message}")
    if problem.suggestion is not None:
        line.append(f" – did you mean {problem.suggestion!r}?", style="bold")
    if problem.pointer:
        line.append(f"  ({problem.pointer})", style="dim")
    return line
