"""The entry point of a worker process: `python -m runtara.sdk.run TARGET…`, configured by `RUNTARA_*`.

It prints one `ready` line to stdout once it takes work (a supervisor is told over its link instead), logs to
stderr, drains on SIGTERM and SIGINT. Exit codes: 0 drained, 2 a target cannot be loaded or a setting is wrong,
5 the platform ended it (no right, journal lost, …), 1 anything else.

Launched by a runner (`RUNTARA_INSTANCE` and `RUNTARA_ATTEMPT` are set) it hosts that one instance, and exits with 0 as
soon as the attempt has ended, however it did, if that was told.
"""

import argparse
import asyncio
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from runtara.infra.lifetime import run_until_stopped
from runtara.infra.logs import configure
from runtara.infra.settings import Settings
from runtara.protocol.errors import BadInput, InvalidTarget, Refused, Unavailable

from .discovery import Code, load
from .single import Single
from .worker import Worker

EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    prepared = prepare(options.targets)
    return host(*prepared, link=options.link) if prepared is not None else EXIT_USAGE


def prepare(targets: Sequence[str]) -> tuple[Settings, Code] | None:
    """The settings of this process, its logs set up by them, and the code of `targets`; None if that was not possible,
    which is said on stderr."""
    try:
        settings = Settings.load()
        configure(settings.log_level, settings.log_format)
        return settings, load(targets)
    except InvalidTarget as exc:
        _print_target_error(exc)
    except BadInput as exc:
        sys.stderr.write(f"error: {exc}\n")
    return None


def host(settings: Settings, code: Code, *, kind: str = "docker", link: int | None = None) -> int:
    """Be a worker, or what a runner of `kind` launched for one instance; returns the exit code."""
    is_launched = settings.instance is not None and settings.attempt is not None
    try:
        asyncio.run(_run_one(settings, code, kind) if is_launched else _run(settings, code, link))
    except (Unavailable, Refused) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_UNREACHABLE
    return 0


async def _run_one(settings: Settings, code: Code, kind: str) -> None:
    single = Single(settings, code, kind=kind)
    await run_until_stopped(single, until=single.ended)
    single.check_told()


async def _run(settings: Settings, code: Code, link: int | None) -> None:
    worker = Worker(settings, code, supervisor=link)

    def ready() -> None:
        if link is None:
            sys.stdout.write(f"ready worker={worker.id} workflows={','.join(worker.workflows)}\n")
            sys.stdout.flush()

    await run_until_stopped(worker, ready=ready)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtara.sdk.run", description="Host the workflows of TARGETs.")
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="module, module:name, or file.py")
    parser.add_argument("--link", type=int, metavar="FD", help=argparse.SUPPRESS)
    return parser


def _print_target_error(error: InvalidTarget) -> None:
    """What is wrong; with the traceback where it is the code's own error."""
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__, file=sys.stderr)
    sys.stderr.write(f"error: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
