"""`runtara audit`: proofs over the event log. They read Postgres itself, so they work without an engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import Progress, TextColumn

from runtara.protocol.errors import PlatformUnreachable

from . import exits, output
from .options import AsJson, settings_for

if TYPE_CHECKING:
    from runtara.infra.postgres import Pool
    from runtara.projections.verdict import Finding, Verdict

app = typer.Typer(no_args_is_help=True, help="Prove that the event log is whole; export, archive and rebuild from it.")

HeadsFile = Annotated[
    Path | None,
    typer.Option(
        "--heads",
        metavar="FILE",
        help="Heads that were kept elsewhere: an export, or what `audit verify --json` printed. The log must still "
        "hold what they stand for, so that one that was rewritten whole shows.",
    ),
]


Archives = Annotated[
    Path | None,
    typer.Option("--archives", metavar="DIR", help="Also prove the files that `audit archive` has written there."),
]


@app.command("verify")
def verify(heads: HeadsFile = None, archives: Archives = None, as_json: AsJson = False) -> None:
    """Check every hash, offset and version of the log. Exit code 1 names the first bad event."""

    async def go() -> None:
        from runtara.projections.audit import verify
        from runtara.projections.heads import read_heads
        from runtara.projections.proofs import prove

        against = read_heads(heads) if heads is not None else None
        async with database() as pool, pool.acquire() as connection, progress("verify") as advance:
            verdict = await verify(connection, advance, against=against)
            if archives is not None:
                findings = [*verdict.findings, *await prove(connection, archives)]
                verdict = msgspec.structs.replace(verdict, findings=findings)
        print_verdict(verdict, "every hash, offset and version holds", as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("replay")
def replay(as_json: AsJson = False) -> None:
    """Fold the log again and compare with the projections. Exit code 1 if anything differs."""

    async def go() -> None:
        from runtara.projections.refold import replay

        async with database() as pool, pool.acquire() as connection, progress("replay") as advance:
            verdict = await replay(connection, advance)
        print_verdict(verdict, "the projections are what the log says", as_json=as_json)

    exits.run(go(), as_json=as_json)


@app.command("rebuild")
def rebuild(as_json: AsJson = False) -> None:
    """Make the projections again from the log where they differ. Engines may go on running."""

    async def go() -> None:
        from runtara.engine.rebuild import rebuild

        async with database() as pool, pool.acquire() as connection, progress("rebuild") as advance:
            done = await rebuild(connection, advance)
        if as_json:
            output.print_json(done)
        else:
            what = f"{output.counted(done.events, 'event')} of {output.counted(done.instances, 'instance')}: "
            what += f"{done.differed:,} differed" if done.differed else "nothing differed"
            output.console().print("[green]ok[/green]  " if done.is_clean else "[red]bad[/red]  ", what, sep="")
            print_findings(done.findings)
        if not done.is_clean:
            raise typer.Exit(exits.FAILED)

    exits.run(go(), as_json=as_json)


@asynccontextmanager
async def database(size: int = 1) -> "AsyncIterator[Pool[Any]]":
    """A pool of the deployment's database."""
    import asyncpg

    from runtara.infra.login import tls_of
    from runtara.infra.postgres import open_pool

    settings = settings_for()
    url, deployment = settings.require_database_url(), settings.deployment
    try:
        async with await open_pool(url, deployment, size=size, patience=None, tls=tls_of(settings)) as pool:
            yield pool
    except asyncpg.UndefinedTableError as exc:
        hint = "set RUNTARA_DEPLOYMENT to one that is there, or run `runtara migrate`"
        raise PlatformUnreachable(reason=f"the database has no tables of deployment {deployment!r}; {hint}") from exc
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as exc:
        raise PlatformUnreachable(reason=f"the database ended it: {exc}") from exc


@asynccontextmanager
async def progress(what: str) -> AsyncIterator[Callable[[int], None]]:
    """A line on stderr that counts events, at a terminal."""
    console = output.error_console()
    columns = (TextColumn("{task.description} {task.completed:,} events"),)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what)
        yield lambda count: shown.advance(task, count)


def print_verdict(verdict: "Verdict", what: str, *, as_json: bool) -> None:
    """Ends the command with exit code 1 if it is negative."""
    if as_json:
        output.print_json(verdict)
    else:
        console = output.console()
        if verdict.is_clean:
            checked = f"{output.counted(verdict.events, 'event')} of {output.counted(verdict.instances, 'instance')}"
            console.print(f"[green]ok[/green]  {checked}: {what}")
        if verdict.retired:
            console.print(f"{verdict.retired:,} events before them are in archives; their hashes hold")
        print_findings(verdict.findings)
        for head in verdict.heads:
            console.print(f"head of partition {head.partition} at offset {head.offset}: {head.hash}")
    if not verdict.is_clean:
        raise typer.Exit(exits.FAILED)


def print_findings(findings: "list[Finding]") -> None:
    """One line each, with all that is known of the place."""
    for finding in findings:
        place = [f"partition {finding.partition}"]
        if finding.offset is not None:
            place.append(f"offset {finding.offset}")
        if finding.instance is not None:
            place.append(f"{finding.tenant}/{finding.instance}")
        if finding.version is not None:
            place.append(f"version {finding.version}")
        output.console().print(f"[red]bad[/red]  {' '.join(place)}: {finding.problem}")
