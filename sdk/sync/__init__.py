"""The blocking faces, for `def` workflows and for programs without an event loop."""

from .context import Context
from .current import current

__all__ = ["Context", "current"]
