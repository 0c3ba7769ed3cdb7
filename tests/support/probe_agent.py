"""An agent for tests of JSON workflows that run: it counts its calls, and fails as it is told."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from runtara.agents import AgentError, Inputs, agent, capability
from runtara.agents.agent import agent_of
from runtara.agents.registry import registry
from runtara.sdk.testing.effects import Effects

EFFECTS: Final = Effects()
_tries: Counter[str] = Counter()


class Echo(Inputs):
    value: Any = None
    number: int = 0


class Fails(Inputs):
    """Fails `times` times, then gives `value`."""

    times: int = 1
    value: Any = None
    code: str = "PROBE_FAILED"
    permanent: bool = False
    retry_after_ms: int | None = None
    id: str = "one"


class Hangs(Inputs):
    pass


@agent("probe")
class Probe:
    @capability("echo", inline=True, idempotent=True)
    def echo(self, inputs: Echo) -> Any:
        """Gives back what it was given."""
        EFFECTS.note(f"echo {inputs.value!r}")
        return inputs.value

    @capability("add", inline=True, idempotent=True)
    def add(self, inputs: Echo) -> int:
        """One more than the number."""
        EFFECTS.note(f"add {inputs.number}")
        return inputs.number + 1

    @capability("fails")
    async def fails(self, inputs: Fails) -> Any:
        """Fails some times."""
        EFFECTS.note(f"fails {inputs.id}")
        _tries[inputs.id] += 1
        if _tries[inputs.id] > inputs.times:
            return inputs.value
        raise AgentError(
            inputs.code, f"try {_tries[inputs.id]}", category="permanent" if inputs.permanent else "transient",
            retry_after=None if inputs.retry_after_ms is None else timedelta(milliseconds=inputs.retry_after_ms),
            attributes={"try": _tries[inputs.id]},
        )  # fmt: skip

    @capability("hangs")
    async def hangs(self, inputs: Hangs) -> None:
        """Never ends."""
        await asyncio.Event().wait()


def forget_tries() -> None:
    _tries.clear()


@contextmanager
def probe_agent() -> Iterator[None]:
    """While this lasts, the registry of this process has the agent `probe`."""
    forget_tries()
    registry()._loaded["probe"] = agent_of(Probe)
    yield
    del registry()._loaded["probe"]
