"""The processes of a platform, each a command: engine, worker; and `migrate`, which creates the deployment."""

import asyncio
import os
import signal
import sys
from typing import Annotated

import typer

from runtara.infra.lifetime import Service, run_until_stopped
from runtara.infra.logs import configure
from runtara.infra.settings import Settings

from . import exits
from .options import Tenant, settings_for

Targets = Annotated[list[str], typer.Argument(metavar="TARGET…", help="module, module:name, file.py or flow.json")]
MaybeTargets = Annotated[
    list[str] | None, typer.Argument(metavar="[TARGET…]", help="module, module:name, file.py or flow.json")
]
Processes = Annotated[int, typer.Option(min=1, metavar="N", help="Worker processes to keep running.")]
Reload = Annotated[bool, typer.Option("--reload", help="Start new workers when the code changes.")]
Child = Annotated[bool, typer.Option("--child", hidden=True, help="End when standard input is closed.")]


def engine(
    accept_journal_loss: Annotated[
        bool,
        typer.Option(
            "--accept-journal-loss",
            help="Go on although the journal lost acknowledged records; resident instances start anew.",
        ),
    ] = False,
    child: Child = False,
) -> None:
    """Run an engine. Any number of them share the work."""
    settings = configured()
    exits.run(_engine(settings, accept_journal_loss, child))


async def _engine(settings: Settings, accept_journal_loss: bool, child: bool) -> None:
    from runtara.engine.accounts import connect_platform
    from runtara.engine.recovery import adopt_journals
    from runtara.engine.service import Engine

    if accept_journal_loss:
        async with await connect_platform(settings, name="runtara engine") as bus:
            for partition in await adopt_journals(settings, bus):
                sys.stderr.write(f"accepted the loss of the journal of partition {partition}\n")
    await serve(Engine(settings), "ready engine", child=child)


def worker(
    targets: MaybeTargets = None,
    registered: Annotated[
        bool,
        typer.Option("--registered", help="Host all JSON workflows that are registered (`dsl register`), too."),
    ] = False,
    processes: Processes = 1,
    reload: Reload = False,
    tenant: Tenant = None,
    child: Child = False,
) -> None:
    """Host the workflows of TARGETs, in worker processes that are kept running."""
    if not targets and not registered:
        raise typer.BadParameter("name a TARGET, or give --registered", param_hint="TARGET")
    pool(targets or [], processes, reload, tenant, child, registered=registered)


def pool(
    targets: list[str], processes: int, reload: bool, tenant: str | None, child: bool, *, registered: bool = False
) -> None:
    settings = configured(tenant)

    async def go() -> None:
        from runtara.runner.pool import Pool
        from runtara.sdk.library import check_language

        if registered:
            check_language()
        pool = Pool(settings, targets, processes=processes, reload=reload, registered=registered)
        hosted = [*targets, *(["--registered"] if registered else [])]
        await serve(pool, f"ready worker {' '.join(hosted)}", child=child)

    exits.run(go())


def migrate() -> None:
    """Bring the database's schema to this version and create the streams. Run it once, and after each upgrade."""
    settings = configured()

    async def go() -> None:
        from runtara.engine.accounts import connect_platform
        from runtara.engine.setup import create_deployment

        async with await connect_platform(settings, name="runtara migrate") as bus:
            deployment = await create_deployment(settings, bus)
        sys.stdout.write(f"deployment {settings.deployment} ({deployment}) is ready\n")

    exits.run(go())


def configured(tenant: str | None = None, **flags: object) -> Settings:
    settings = settings_for(tenant, **flags)
    configure(settings.log_level, settings.log_format)
    return settings


async def serve(service: Service, line: str, *, child: bool) -> None:
    watch = asyncio.create_task(_end_with_parent()) if child else None

    def ready() -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        await run_until_stopped(service, ready=ready)
    finally:
        if watch is not None:
            watch.cancel()


async def _end_with_parent() -> None:
    """Our standard input is a pipe that our parent holds: its end, however it came, is ours."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await reader.read()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        transport.close()
