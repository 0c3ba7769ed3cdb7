"""What an attempt's code may open: the connections that its workflow names, while its claim holds.

Invariants: a connection that the workflow does not name is refused before anybody is asked; nobody is asked before the
claim is confirmed; what was opened shows its fields to nobody who did not ask for them by name.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from runtara.protocol.errors import ConnectionNotAllowed, PlatformUnreachable
from runtara.protocol.ids import check_id


class _Fields(dict[str, Any]):
    """A dict whose text names what it has, and shows none of it."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: …' for name in self)}}}"

    __str__ = __repr__


class ConnectionValue:
    """A connection's name, type and fields. It cannot be recorded: no step returns it, no checkpoint holds it."""

    __slots__ = ("fields", "name", "type")

    def __init__(self, name: str, type: str, fields: Mapping[str, Any]) -> None:
        self.name = check_id(name, "connection")
        self.type = type
        self.fields: dict[str, Any] = _Fields(fields)

    def __repr__(self) -> str:
        return f"<connection {self.name} ({self.type})>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} holds secrets and is not pickled; open it where it is used")


class Opener(Protocol):
    """Gets connections from the platform, for all instances of a process."""

    async def open(self, workflow: str, instance: str, name: str) -> ConnectionValue:
        """Waits for the platform. Raises `ConnectionNotFound`, `ConnectionNotAllowed`, `SealingKeyMissing`."""
        ...


class Granted:
    """The connections of one attempt. `names` are those that its workflow's code names."""

    def __init__(
        self, opener: Opener | None, instance: str, workflow: str, names: tuple[str, ...], confirmed: asyncio.Event
    ) -> None:
        self._opener = opener
        self._workflow = workflow
        self._instance = instance
        self._names = names
        self._confirmed = confirmed

    async def open(self, name: str) -> ConnectionValue:
        """Raises as `Opener.open`."""
        check_id(name, "connection")
        if name not in self._names:
            named = f"its workflow {self._workflow} does not name it"
            raise ConnectionNotAllowed(instance=self._instance, connection=name, reason=named)
        if self._opener is None:
            raise PlatformUnreachable(reason="nobody hands out connections here")
        await self._confirmed.wait()
        return await self._opener.open(self._workflow, self._instance, name)
