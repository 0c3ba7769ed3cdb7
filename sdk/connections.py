"""Connections: `connection("crm")` opens one in a workflow's code, `client.connections` sets, lists and deletes them.

    @workflow(connections=("crm",))
    async def sync(ctx: Context) -> None:
        crm = await connection("crm")
        ...  # crm.type, crm.fields["token"]

Invariant: what is set is never read back by a client; only the code of a workflow that names a connection opens it.
"""

import asyncio
import builtins
from collections.abc import Mapping

from msgspec import Raw

from runtara.protocol.configuration import ConnectionView, SetConnection
from runtara.protocol.connections import check_connection
from runtara.protocol.errors import BadInput, InvalidConnection, NoContext, StateNotRepresentable, StateTooLarge
from runtara.protocol.ids import check_id

from .granted import ConnectionValue
from .ports import Api
from .scope import FRAME
from .values import encode

__all__ = ["ConnectionValue", "Connections", "connection"]


async def connection(name: str) -> ConnectionValue:
    """The connection `name`, in a workflow or a step of one that names it: `@workflow(connections=("crm",))`.

    It is read from the platform, at most once a minute, and never recorded: open it where it is used, in the step.
    Raises `ConnectionNotAllowed`, `ConnectionNotFound`; `NoContext` outside of a workflow.
    """
    frame = FRAME.get(None)
    if frame is None:
        raise NoContext(function="connection()")
    if asyncio.get_running_loop() is not frame.host.loop:
        reason = "connection() is of the workflow's event loop; in a thread it is runtara.sdk.sync.connection(name)"
        raise BadInput(reason=reason)
    return await frame.host.granted.open(name)


class Connections:
    """The connections of this tenant."""

    def __init__(self, api: Api, actor: str | None) -> None:
        self._api = api
        self._actor = actor

    async def set(self, name: str, type: str, fields: Mapping[str, object]) -> ConnectionView:
        """Make a connection, or put this in its place; whoever has it open may use the former for up to a minute.

        The platform seals `fields` and never shows them again. Raises `InvalidId`, `InvalidConnection`,
        `SealingKeyMissing`.
        """
        try:
            text = Raw(encode(dict(fields), key=name))
        except (StateNotRepresentable, StateTooLarge) as exc:
            raise InvalidConnection(type=type, reason="its fields must be plain JSON values") from exc
        check_connection(name, type, text)
        request = SetConnection(name=name, type=type, fields=text, actor=self._actor)
        return await self._api.call("set_connection", request, ConnectionView)

    async def list(self) -> builtins.list[ConnectionView]:
        """All of them by name, without what they hold."""
        return await self._api.call("connections", {}, builtins.list[ConnectionView])

    async def delete(self, name: str) -> None:
        """Nobody can open it from now on. Raises `ConnectionNotFound`."""
        await self._api.call("forget_connection", check_id(name, "connection"), bool)
