"""`dev`, `demo` and `run`: a platform of one's own, with one command."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from runtara.infra import discovery
from runtara.infra.lifetime import Service, run_until_stopped
from runtara.infra.logs import configure
from runtara.infra.processes import ProcessId
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import DataInUse, ExtraMissing, InvalidTarget

from . import exits, output
from .options import AsJson, parse_input, settings_for
from .platform import LocalPlatform

Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Where data are kept (.runtara/data).")]
DEMO_ORDERS: Final = 1_000
CLIENT: Final = "dev"
CLIENT_FILE: Final = "dev.creds"
CLIENT_SECONDS: Final = 365 * 24 * 3600.0  # every start of `dev` makes a new one


def dev(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET…]", help="module, module:name, file.py or flow.json")
    ] = None,
    data: Data = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start new workers when the code changes.")] = False,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Worker processes.")] = 1,
) -> None:
    """Run a whole platform here: NATS, Postgres, an engine, and workers for TARGETs. Ctrl-C ends it."""
    settings = _checked_settings()
    configure(settings.log_level, settings.log_format)
    folder = discovery.make_folder(Path.cwd())
    service = _Dev(settings, data or folder / "data", targets or [], processes=processes, reload=reload)
    exits.run(run_until_stopped(service, ready=service.say_ready))


def _checked_settings() -> Settings:
    record = discovery.read(Path.cwd())
    if record is not None and record.is_live():
        exits.fail(DataInUse(folder=str(Path.cwd() / discovery.FOLDER), pid=str(record.process.pid)))
    check_embedded()
    return settings_for()


def check_embedded() -> None:
    try:
        import alembic  # noqa: F401
        import asyncpg  # noqa: F401
    except ImportError:
        exits.fail(ExtraMissing(extra="embedded"))


def _has_language() -> bool:
    """Whether JSON workflows that are registered can be run here."""
    from runtara.sdk.library import check_language

    try:
        check_language()
    except ExtraMissing:
        return False
    return True


class _Dev(Service):
    """The platform, and the file by which others in this directory find it."""

    def __init__(self, settings: Settings, data: Path, targets: list[str], *, processes: int, reload: bool) -> None:
        super().__init__("dev")
        self._platform = LocalPlatform(
            settings, data, targets, processes=processes, reload=reload, registered=_has_language()
        )
        self._data = data
        self._targets = targets

    async def open(self) -> None:
        await self.enter(self._platform)
        settings = self._platform.settings
        file = await self._client_credential(settings)
        record = discovery.DevRecord(
            process=ProcessId.current(),
            nats_url=settings.require_nats_url(),
            nats_user=settings.nats_user,
            nats_password=settings.nats_password,
            nats_credentials=settings.nats_credentials if file is None else str(file),
            nats_client=None if file is None else CLIENT,
            nats_keys=settings.nats_keys,
            database_url=settings.require_database_url(),
            deployment=settings.deployment,
            tenant=settings.tenant,
            data=str(self._data),
        )
        discovery.write(record, Path.cwd())
        self.on_close(self._remove)

    async def _client_credential(self, settings: Settings) -> Path | None:
        """The file with which everybody in this directory is a client of the tenant; None without operator mode."""
        from runtara.sdk.credentials import obtain, operator

        asker = operator(settings)
        if asker is None:
            return None
        credential = await obtain(
            settings, asker, kind=Kind.CLIENT, user=CLIENT, expires_in=CLIENT_SECONDS, name="runtara dev"
        )
        file = discovery.make_folder(Path.cwd()) / CLIENT_FILE
        credential.write(file)
        return file.absolute()

    async def _remove(self) -> None:
        discovery.remove(Path.cwd())

    def say_ready(self) -> None:
        settings = self._platform.settings
        database = re.sub(r"//[^@/]*@", "//", settings.require_database_url())
        hosted = f" targets={','.join(self._targets)}" if self._targets else ""
        sys.stdout.write(f"ready nats={settings.nats_url} database={database} pid={os.getpid()}{hosted}\n")
        sys.stdout.flush()


def demo(
    data: Data = None,
    orders: Annotated[int, typer.Option(min=10, metavar="N", help="Orders in the batch.")] = DEMO_ORDERS,
    as_json: AsJson = False,
) -> None:
    """See a batch of orders lose its process in the middle, go on where it was, and the proof of it."""
    from .demo import tell

    check_embedded()
    configure("error", "json" if as_json else None)
    if data is not None:
        exits.run(tell(data, orders, as_json=as_json), as_json=as_json)
        return
    with tempfile.TemporaryDirectory(prefix="runtara-demo-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # Postgres runs as another user where we are root
        exits.run(tell(Path(folder) / "data", orders, as_json=as_json), as_json=as_json)


def run(
    target: Annotated[
        str, typer.Argument(metavar="TARGET[:WORKFLOW]", help="module or file.py, and a workflow of it; or flow.json.")
    ],
    input: Annotated[str | None, typer.Option("--input", metavar="JSON|@FILE|-", help="Parameters by name.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow once on the embedded servers and print its result."""
    check_embedded()
    configure("warning")
    exits.run(_run(target, input, data or folder_for_runs(), as_json), as_json=as_json)


async def _run(target: str, input: str | None, data: Path, as_json: bool) -> None:
    from runtara.sdk.discovery import load

    names = [workflow.name for workflow in load([target]).workflows]
    if len(names) != 1:
        reason = f"it has the workflows {', '.join(names)}; name one: {target}:{names[0]}"
        raise InvalidTarget(target=target, reason=reason)
    await run_once([target], names[0], input, data, as_json=as_json)


def folder_for_runs() -> Path:
    """Where the servers of single runs in this directory keep their data."""
    return discovery.make_folder(Path.cwd()) / "run"


async def run_once(targets: list[str], workflow: str, input: str | None, data: Path, *, as_json: bool) -> None:
    """Run a workflow of `targets` on a platform of its own, and print its result."""
    from runtara.sdk.client import Client

    from .instances import print_result

    arguments = parse_input(input, workflow)
    async with (
        LocalPlatform(Settings(log_level="warning"), data, targets) as platform,
        Client(platform.settings, actor="run") as client,
    ):
        handle = await client.start(workflow, arguments)
        if output.console().is_terminal:
            sys.stderr.write(f"started {handle.id}\n")
        print_result(handle.id, await handle.result(), as_json=as_json)
