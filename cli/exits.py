"""Exit codes, a contract with scripts: 0 done, 1 failed or a negative verdict, 2 usage, 3 not found, 4 illegal
transition or conflict, 5 platform unreachable, 124 timed out. Errors become one clear line on stderr."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
import typer

from runtara.protocol.errors import (
    BadInput,
    ChildTooDeep,
    ConnectionNotAllowed,
    ConnectionNotFound,
    CredentialNotFound,
    CredentialRefused,
    DefinitionInUse,
    DefinitionNotFound,
    ExecutionFailed,
    HistoryTooLarge,
    IllegalTransition,
    ImageInUse,
    ImageNotFound,
    InstanceNotFound,
    NotAllowed,
    ResultTimeout,
    RuntaraError,
    ScheduleConflict,
    ScheduleNotFound,
    StartConflict,
    TooManySignals,
    Unavailable,
    UnknownAgent,
    UnknownCapability,
    UnknownKey,
    UnknownWorkflow,
)

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNREACHABLE: Final = 5
TIMED_OUT: Final = 124

_CODES: Final[tuple[tuple[type[RuntaraError], int], ...]] = (
    (ResultTimeout, TIMED_OUT),
    (InstanceNotFound, NOT_FOUND),
    (UnknownWorkflow, NOT_FOUND),
    (UnknownKey, NOT_FOUND),
    (UnknownAgent, NOT_FOUND),
    (UnknownCapability, NOT_FOUND),
    (ScheduleNotFound, NOT_FOUND),
    (ScheduleConflict, CONFLICT),
    (ImageNotFound, NOT_FOUND),
    (ImageInUse, CONFLICT),
    (CredentialNotFound, NOT_FOUND),
    (ConnectionNotFound, NOT_FOUND),
    (DefinitionNotFound, NOT_FOUND),
    (DefinitionInUse, CONFLICT),
    (ConnectionNotAllowed, CONFLICT),
    (IllegalTransition, CONFLICT),
    (StartConflict, CONFLICT),
    (ChildTooDeep, CONFLICT),
    (TooManySignals, CONFLICT),
    (HistoryTooLarge, CONFLICT),
    (ExecutionFailed, FAILED),
    (BadInput, USAGE),
    (NotAllowed, UNREACHABLE),
    (CredentialRefused, UNREACHABLE),
    (Unavailable, UNREACHABLE),
)


def exit_code(error: RuntaraError) -> int:
    return next((code for cls, code in _CODES if isinstance(error, cls)), FAILED)


def run(coroutine: Coroutine[Any, Any, None], *, as_json: bool = False) -> None:
    """Run a command; its error becomes a line on stderr (a JSON object with `--json`) and an exit code."""
    try:
        asyncio.run(coroutine)
    except RuntaraError as exc:
        fail(exc, as_json=as_json)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has enough of it
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: RuntaraError, *, as_json: bool = False) -> None:
    if as_json:
        sys.stderr.write(msgspec.json.encode({"error": error.to_wire()}).decode() + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    raise typer.Exit(exit_code(error))
