"""The blocking context in reach of a thread."""

from runtara.protocol.errors import NoContext

from ..context import Context as _Context
from ..scope import FRAME
from .context import Context


def current() -> Context:
    """The context of the `def` workflow, step or thread that is running here. Raises `NoContext`."""
    frame = FRAME.get(None)
    if frame is None or not isinstance(frame.host.context, _Context):
        raise NoContext(function="current()")
    return Context(frame.host.context, frame.host)
