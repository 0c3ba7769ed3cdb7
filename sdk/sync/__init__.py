"""The blocking faces, for `def` workflows and for programs without an event loop."""

from .client import Client, Handle
from .context import Child, Context
from .current import connection, current
from .instance import Instance

__all__ = ["Child", "Client", "Context", "Handle", "Instance", "connection", "current"]
