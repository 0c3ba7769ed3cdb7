"""What is in reach of a thread: its blocking context, and the connections of its workflow."""

import asyncio

from runtara.protocol.errors import BadInput, NoContext

from ..context import Context as _Context
from ..granted import ConnectionValue
from ..scope import FRAME
from .context import Context


def current() -> Context:
    """The context of the `def` workflow, step or thread that is running here. Raises `NoContext`."""
    frame = FRAME.get(None)
    if frame is None or not isinstance(frame.host.context, _Context):
        raise NoContext(function="current()")
    return Context(frame.host.context, frame.host)


def connection(name: str) -> ConnectionValue:
    """The connection `name`, in a `def` workflow or step of one that names it.

    Raises `ConnectionNotAllowed`, `ConnectionNotFound`; `NoContext` outside of a workflow.
    """
    frame = FRAME.get(None)
    if frame is None:
        raise NoContext(function="connection()")
    host = frame.host
    if asyncio._get_running_loop() is host.loop:
        raise BadInput(reason="sync.connection() would block the event loop; here it is `await connection(name)`")
    return host.call_blocking(lambda: host.granted.open(name))
