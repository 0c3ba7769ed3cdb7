"""`runtara dsl compile` and `runtara dsl run`: a JSON workflow as Python source, and run once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtara.infra.logs import configure
from runtara.protocol.errors import RuntaraError

from . import exits, output
from .options import AsJson, Tenant

Document = Annotated[Path, typer.Argument(metavar="FILE", help="A JSON workflow.", dir_okay=False)]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Where data are kept (.runtara/run).")]


def compile_file(
    file: Document,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="Where to write it (stdout).")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Print a JSON workflow as the Python source that runs it."""
    try:
        from runtara.dsl.compiler import compile_workflow
        from runtara.dsl.load import graph_of_file

        source = compile_workflow(graph_of_file(file), id=file.stem)
    except RuntaraError as exc:
        exits.fail(exc, as_json=as_json)
        return
    if out is not None:
        out.write_text(source, "utf-8")
    if as_json:
        output.print_json({"workflow": file.stem, "source": source, "file": None if out is None else str(out)})
    elif out is None:
        sys.stdout.write(source)


def run_file(
    file: Document,
    input: Annotated[
        str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="Its data, or {data, variables}.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Where data are kept (.runtara/run).")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Run a JSON workflow once on the embedded servers and print its result.

    The workflows that it embeds are run, too, if they lie beside it.
    """
    from .local import check_embedded, folder_for_runs, run_once

    check_embedded()
    configure("warning")
    try:
        from runtara.dsl.load import files_of

        targets = [str(each) for each in files_of(file)]
    except RuntaraError as exc:
        exits.fail(exc, as_json=as_json)
        return
    exits.run(run_once(targets, file.stem, input, data or folder_for_runs(), as_json=as_json), as_json=as_json)
