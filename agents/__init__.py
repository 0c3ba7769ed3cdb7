"""Ready-made steps: agents and their capabilities, for JSON workflows, for Python ones, and alone."""

from runtara.protocol.errors import ExtraMissing

try:
    import pydantic as _pydantic  # noqa: F401
except ImportError as exc:
    raise ExtraMissing(extra="agents") from exc

from .agent import Agent, Capability, agent, capability
from .connections import Connection, ConnectionType
from .errors import AgentError
from .models import Data, FileObject, Inputs, Outputs, read_bytes, read_text

__all__ = [
    "Agent",
    "AgentError",
    "Capability",
    "Connection",
    "ConnectionType",
    "Data",
    "FileObject",
    "Inputs",
    "Outputs",
    "agent",
    "capability",
    "read_bytes",
    "read_text",
]
