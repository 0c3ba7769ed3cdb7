"""`runtara audit`: proofs over the event log. They read Postgres itself, so they work without an engine."""

from collections.abc import Awaitable, Callable
from typing import Any

import typer
from rich.progress import Progress, TextColumn

from runtara.infra.settings import Settings

from . import exits, output
from .options import AsJson, settings_for

app = typer.Typer(help="Prove that the event log is whole, and that the projections say what it says.")


@app.command("verify")
def verify(as_json: AsJson = False) -> None:
    """Check every hash, offset and version of the log. Exit code 1 names the first bad event."""
    exits.run(_audit("verify", as_json), as_json=as_json)


@app.command("replay")
def replay(as_json: AsJson = False) -> None:
    """Fold the log again and compare with the projections. Exit code 1 if anything differs."""
    exits.run(_audit("replay", as_json), as_json=as_json)


async def _audit(kind: str, as_json: bool) -> None:
    from runtara.projections import audit

    check: Callable[[Any, audit.Progress], Awaitable[audit.Verdict]] = (
        audit.verify if kind == "verify" else audit.replay
    )
    verdict = await _with_progress(settings_for(), kind, check)
    if as_json:
        output.print_json(verdict)
    else:
        _print(kind, verdict)
    if not verdict.is_clean:
        raise typer.Exit(exits.FAILED)


async def _with_progress(settings: Settings, kind: str, check: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    from runtara.infra.postgres import open_pool

    columns = (TextColumn("{task.description} {task.completed:,} events"),)
    with Progress(*columns, transient=True, disable=not output.console().is_terminal) as progress:
        task = progress.add_task(kind)
        pool = await open_pool(settings.require_database_url(), settings.deployment, size=1)
        async with pool, pool.acquire() as connection:
            return await check(connection, lambda count: progress.advance(task, count))


def _print(kind: str, verdict: Any) -> None:
    console = output.console()
    what = "every hash, offset and version holds" if kind == "verify" else "the projections are what the log says"
    if verdict.is_clean:
        console.print(f"[green]ok[/green]  {verdict.events:,} events of {verdict.instances:,} instances: {what}")
    for finding in verdict.findings:
        place = f"{finding.tenant}/{finding.instance}" if finding.instance else f"partition {finding.partition}"
        at = f" offset {finding.offset} version {finding.version}" if finding.offset is not None else ""
        console.print(f"[red]bad[/red]  {place}{at}: {finding.problem}")
    for partition, head in verdict.heads.items():
        console.print(f"head of partition {partition}: {head}")
