"""Calling a capability as a step: its tries, and its waits for a rate limit.

Invariants: each try that ended is in the log, a failed one with when the next is due, so a crash between two tries
repeats none of them; a wait that the other side asked for is a durable sleep out of a budget of its own, and costs no
try; a connection is asked for by each try anew and recorded nowhere.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from runtara.agents import AgentError, calls
from runtara.agents.connections import Connection, parse_connection
from runtara.agents.registry import registry
from runtara.protocol.errors import InvalidConnection
from runtara.protocol.ids import is_id
from runtara.sdk.connections import connection as opened
from runtara.sdk.context import Context
from runtara.sdk.retry import Retry, Tries
from runtara.sdk.step import step

from .errors import StepError, agent_error

MAX_RETRY_DELAY: Final = timedelta(minutes=5)  # the delay doubles with each try, up to this, unless it begins above it
INVALID_CONNECTION: Final = "STEP_INVALID_CONNECTION"
_CACHED: Final = 4_096
Attempt = Callable[[Mapping[str, object], object], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class AgentCall:
    """Which capability, and how often and how long it is tried."""

    agent: str
    capability: str
    max_retries: int
    retry_delay_ms: int
    timeout_ms: int | None
    rate_limit_budget_ms: int


async def call_agent(
    ctx: Context, key: str, call: AgentCall, inputs: Mapping[str, object], connection: object, *, durable: bool
) -> object:
    """What the capability returns, as JSON. Raises `StepError` once the tries are used up."""
    if durable:
        return await ctx.step(key, _recorded(call), inputs, connection)
    return await _unrecorded(call, inputs, connection)


@lru_cache(maxsize=_CACHED)
def _recorded(call: AgentCall) -> Attempt:
    """One try, as a step."""

    async def attempt(inputs: Mapping[str, object], connection: object) -> Any:
        return await _try(call, inputs, connection)

    return step(retry=retry_of(call), raises=(StepError,))(attempt)


@lru_cache(maxsize=_CACHED)
def retry_of(call: AgentCall) -> Retry:
    initial = timedelta(milliseconds=call.retry_delay_ms)
    return Retry(
        max_attempts=call.max_retries + 1, initial=initial, max_delay=max(MAX_RETRY_DELAY, initial),
        max_retry_after=None, retry_after_budget=timedelta(milliseconds=call.rate_limit_budget_ms),
    )  # fmt: skip


async def _unrecorded(call: AgentCall, inputs: Mapping[str, object], connection: object) -> object:
    """The same without any record: the next attempt of the instance makes the calls again."""
    policy, tries = retry_of(call), Tries()
    while True:
        tries = tries._replace(made=tries.made + 1)
        try:
            return await _try(call, inputs, connection)
        except StepError as exc:
            wait, tries = policy.wait_after(exc, tries, random=random.random())
            if wait is None:
                raise
        await asyncio.sleep(wait.total_seconds())


async def _try(call: AgentCall, inputs: Mapping[str, object], connection: object) -> object:
    timeout = None if call.timeout_ms is None else timedelta(milliseconds=call.timeout_ms)
    capability = registry().capability(call.agent, call.capability)
    try:
        if connection is None:
            return await calls.call(capability, inputs, timeout=timeout)
        return await calls.call(capability, inputs, connection=await _resolved(connection), timeout=timeout)
    except AgentError as exc:
        raise agent_error(exc) from exc


async def _resolved(name: object) -> Connection:
    """What the platform answers, or this process has known for less than a minute. It is recorded nowhere."""
    if not isinstance(name, str) or not is_id(name):
        raise AgentError(INVALID_CONNECTION, "the name of a connection is a text of letters, digits, '_' or '-'")
    found = await opened(name)
    try:
        return parse_connection(found.type, found.fields)
    except InvalidConnection as exc:
        raise AgentError(INVALID_CONNECTION, f"connection {name}: {exc}") from None
