"""Steps that wait: Delay, WaitForSignal, and the breakpoint before any step.

Invariants: deadlines are the platform's, absolute and in the log; the name of a signal is a legal one, and the same in
every attempt, for each loop index another; what is asked of people is in the log before anybody is waited for.
"""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from runtara.protocol.ids import is_id
from runtara.sdk.context import Context

from ..coercions import number_in
from ..schemas import Fields, conform
from .errors import INVALID_INPUT, StepError

CONTINUE: Final = "_continue"
MAX_MS: Final = 10 * 365 * 24 * 3600 * 1000  # ten years: longer is a mistake in the unit
AWAITED: Final = "waiting_for_signal"


@dataclass(frozen=True, slots=True)
class SignalWait:
    """`path`: the step, behind those whose body it is in, with their indices."""

    path: tuple[str, ...]
    timeout_ms: object
    response_schema: Fields
    action: Mapping[str, Any] | None


async def wait_to_continue(ctx: Context, key: str) -> None:
    """Stop until somebody sends `_continue`."""
    await ctx.wait_signal(CONTINUE, key=f"{key}/breakpoint")


async def sleep(ctx: Context, key: str, duration_ms: object) -> None:
    await ctx.sleep(key, _duration(duration_ms, "durationMs"))


async def wait_for_signal(
    ctx: Context, key: str, wait: SignalWait, before: Callable[[str], Coroutine[Any, Any, None]]
) -> object:
    """The payload. Raises `SignalTimeout`, `SchemaMismatch`."""
    signal = signal_name(wait.path)
    timeout = None if wait.timeout_ms is None else _duration(wait.timeout_ms, "timeoutMs")
    with ctx.scope(key):
        if wait.action is not None:
            await ctx.emit(AWAITED, {"signal": signal, "step": wait.path[-1], **wait.action}, key="action")
        with ctx.scope("wait"):
            await before(signal)
    payload = await ctx.wait_signal(signal, timeout=timeout, key=key)
    return conform(payload, wait.response_schema, what=f"the payload of signal {signal!r}")


def signal_name(path: tuple[str, ...]) -> str:
    """`approve`; in the body of a Split or While `lines-0-approve`. What is no legal name becomes one by its hash."""
    name = "-".join(path)
    return name if is_id(name) else f"signal-{hashlib.sha256(repr(path).encode()).hexdigest()[:16]}"


def _duration(value: object, what: str) -> timedelta:
    number = number_in(value)
    if number is None or not 0 <= number <= MAX_MS:
        raise StepError(code=INVALID_INPUT, message=f"{what} must be milliseconds from 0 to {MAX_MS:,}, not {value!r}")
    return timedelta(milliseconds=number)
