"""The blocking faces, for `def` workflows and for programs without an event loop."""

from .client import Client, Handle
from .context import Context
from .current import current
from .instance import Instance

__all__ = ["Client", "Context", "Handle", "Instance", "current"]
