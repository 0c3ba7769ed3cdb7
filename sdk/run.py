"""The entry point of a worker process: `python -m runtara.sdk.run [--registered] TARGET…`, configured by `RUNTARA_*`.

It prints one `ready` line to stdout once it takes work (a supervisor is told over its link instead), logs to
stderr, drains on SIGTERM and SIGINT. With `--check` it says what it would host, and exits. Exit codes: 0 drained, 2 a
target cannot be loaded or a setting is wrong, 5 the platform ended it (no right, journal lost, …), 75 code in it did
not end although it was told to (all else was handed over; start another), 1 anything else.

Launched by a runner (`RUNTARA_INSTANCE` and `RUNTARA_ATTEMPT` are set) it hosts that one instance, and exits with 0 as
soon as the attempt has ended, however it did, if that was told. Launched for a workflow (`RUNTARA_WORKFLOW`) it is a
worker like any other, but hosts that workflow alone, and registers nothing.
"""

import argparse
import asyncio
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from runtara.infra.lifetime import run_until_stopped
from runtara.infra.logs import configure
from runtara.infra.settings import Settings
from runtara.protocol.errors import BadInput, ExtraMissing, InvalidTarget, Refused, Unavailable

from . import check
from .discovery import Code, load
from .overdue import EXIT_OVERDUE
from .roles import Launched, Role, only, registrar
from .single import Single
from .worker import Worker

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 5
LAST_RESORT_SECONDS: Final = 10.0  # beyond what leaving may take: a supervisor, if there is one, comes first


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not options.targets and not options.registered:
        _parser().error("name a TARGET, or give --registered")
    prepared = prepare(options.targets)
    if prepared is None:
        return EXIT_USAGE
    settings, code = prepared
    if options.check:
        check.write(check.check(code))
        return 0
    return host(settings, code, link=options.link, definitions=options.registered)


def prepare(targets: Sequence[str]) -> tuple[Settings, Code] | None:
    """The settings of this process, its logs set up by them, and the code of `targets`; None if that was not possible,
    which is said on stderr."""
    try:
        settings = Settings.load()
        configure(settings.log_level, settings.log_format)
        code = load(targets)
        return settings, only(code, settings.workflow, targets) if settings.workflow is not None else code
    except InvalidTarget as exc:
        _print_target_error(exc)
    except BadInput as exc:
        sys.stderr.write(f"error: {exc}\n")
    return None


def host(
    settings: Settings, code: Code, *, kind: str = "docker", link: int | None = None, definitions: bool = False
) -> int:
    """Be a worker (with `definitions`: of all registered ones, too), or what a runner of `kind` launched for one
    instance; returns the exit code."""
    if settings.instance is not None and settings.attempt is not None:
        return asyncio.run(_run_one(settings, code, kind))
    try:
        role = Launched(kind) if settings.workflow is not None else registrar(definitions=definitions)
    except ExtraMissing as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_USAGE
    return asyncio.run(_run(settings, code, role, link))


async def _run_one(settings: Settings, code: Code, kind: str) -> int:
    """Until the attempt has ended. What does not end is ended by the runner."""
    single = Single(settings, code, kind=kind)
    try:
        await run_until_stopped(single, until=single.ended)
        single.check_told()
    except (Unavailable, Refused) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_UNREACHABLE
    return 0


async def _run(settings: Settings, code: Code, role: Role, link: int | None) -> int:
    """Until it is told to stop. Code that does not end is not waited for, as Python's own way out would, for ever."""
    loop, leave, stopped_status = asyncio.get_running_loop(), asyncio.Event(), 0

    def on_overdue() -> None:
        nonlocal stopped_status
        stopped_status = EXIT_OVERDUE
        loop.call_soon_threadsafe(leave.set)
        _end_in(worker.leave_seconds + LAST_RESORT_SECONDS)

    def ready() -> None:
        if link is None:
            sys.stdout.write(f"ready worker={worker.id} workflows={','.join(worker.workflows)}\n")
            sys.stdout.flush()

    worker = Worker(settings, code, supervisor=link, role=role, on_overdue=on_overdue)
    try:
        await run_until_stopped(worker, ready=ready, leave=leave)
        status = stopped_status
    except (Unavailable, Refused) as exc:
        sys.stderr.write(f"error: {exc}\n")
        status = EXIT_UNREACHABLE
    except Exception:
        if not worker.has_code:
            raise
        traceback.print_exc()
        status = EXIT_FAILED
    if worker.has_code:
        _end_now(status)
    return status


def _end_in(seconds: float) -> None:
    """End the process by then, also if its event loop is blocked."""
    timer = threading.Timer(seconds, _end_now, [EXIT_OVERDUE])
    timer.daemon = True
    timer.start()


def _end_now(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runtara.sdk.run", description="Host the workflows of TARGETs.")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="module, module:name, file.py or flow.json")
    parser.add_argument("--registered", action="store_true", help="host all JSON workflows that are registered, too")
    parser.add_argument(check.FLAG, action="store_true", help="import them, print what they host as JSON, and exit")
    parser.add_argument("--link", type=int, metavar="FD", help=argparse.SUPPRESS)
    return parser


def _print_target_error(error: InvalidTarget) -> None:
    """What is wrong; with the traceback where it is the code's own error."""
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__, file=sys.stderr)
    sys.stderr.write(f"error: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
