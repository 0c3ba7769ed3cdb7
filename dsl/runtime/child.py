"""Running another workflow as a child instance, and another one if that fails.

Invariants: a try is a child of its own, whose id is made of the step's whole path and the try's number, so each is
started once; the waits between them, and the time a try may take, are in the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from runtara.protocol.errors import ChildCancelled, ChildFailed, StepTimeout
from runtara.sdk.context import Context
from runtara.sdk.limits import within
from runtara.sdk.retry import Retry

from .agent import MAX_RETRY_DELAY
from .definition import DATA, VARIABLES
from .errors import StepError

_ENVELOPE: Final = frozenset({DATA, VARIABLES})


@dataclass(frozen=True, slots=True)
class ChildCall:
    """Which workflow (`version` None: the latest), and how often and how long it is tried."""

    workflow: str
    version: int | None
    max_retries: int
    retry_delay_ms: int
    timeout_ms: int | None


async def call_child(ctx: Context, key: str, call: ChildCall, inputs: Mapping[str, object]) -> object:
    """The child's result. Raises `ChildFailed`, `ChildCancelled` or `StepTimeout` once the tries are used up."""
    initial = timedelta(milliseconds=call.retry_delay_ms)
    retry = Retry(max_attempts=call.max_retries + 1, initial=initial, max_delay=max(MAX_RETRY_DELAY, initial), jitter=0)
    with ctx.scope(key):
        attempt = 1
        while True:
            try:
                return await _try(ctx, str(attempt), call, inputs)
            except (ChildFailed, StepTimeout) as exc:
                wait = None if _is_permanent(exc) else retry.delay(attempt)
                if wait is None:
                    raise
            await ctx.sleep(f"{attempt}/wait", wait)
            attempt += 1


async def _try(ctx: Context, key: str, call: ChildCall, inputs: Mapping[str, object]) -> object:
    async def child() -> Any:
        return await ctx.call(call.workflow, child_input(inputs), key=key, version=call.version)

    if call.timeout_ms is None:
        return await child()
    return await within(ctx, f"{key}/timeout", timedelta(milliseconds=call.timeout_ms), child)


def child_input(inputs: Mapping[str, object]) -> Mapping[str, object]:
    """The mapped input as it is, so that a Python workflow takes it by parameter and a JSON workflow as its data. In
    the JSON form's own envelope, if a JSON workflow would take it for one."""
    return {DATA: inputs} if _ENVELOPE & inputs.keys() else inputs


def _is_permanent(error: ChildFailed | ChildCancelled | StepTimeout) -> bool:
    """A JSON child that failed with a permanent error of its own fails so every time."""
    details: Any = error.attributes.get("details")
    return (
        isinstance(error, ChildFailed)
        and error.type == StepError.__name__
        and isinstance(details, Mapping)
        and details.get("category") == "permanent"
    )
