"""Calling a capability of an agent as a JSON workflow does: by names and JSON values."""

import asyncio
from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from runtara.agents import AgentError
from runtara.agents.calls import call
from runtara.agents.registry import registry


def perform(agent: str, capability: str, inputs: Mapping[str, object]) -> JsonValue:
    return asyncio.run(call(registry().capability(agent, capability), inputs))


def code_of(agent: str, capability: str, inputs: Mapping[str, object]) -> str | None:
    """The code of the error, or None where there is none."""
    try:
        perform(agent, capability, inputs)
    except AgentError as error:
        _check_known(agent, capability, error)
        return error.code
    return None


def refused(agent: str, capability: str, inputs: Mapping[str, object]) -> AgentError:
    """The error, which must be permanent: trying again with the same data cannot help."""
    with pytest.raises(AgentError) as caught:
        perform(agent, capability, inputs)
    assert caught.value.category == "permanent"
    _check_known(agent, capability, caught.value)
    return caught.value


def _check_known(agent: str, capability: str, error: AgentError) -> None:
    """The catalogue names every code that a capability fails with, but for those of any call."""
    known = registry().capability(agent, capability).errors
    assert error.code in known or error.code.startswith("STEP_"), f"{error.code} is not among {known}"
