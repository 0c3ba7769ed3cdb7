"""The in-memory twin of the platform's connections: what a test has given, and what its client sets.

Invariant: like the real ones they are opened by the code that names them alone, and listed without what they hold.
"""

from collections.abc import Callable, Iterable

import msgspec

from runtara.engine.memory import MemoryBus
from runtara.protocol.configuration import ConnectionView, SetConnection
from runtara.protocol.connections import check_connection, read_fields
from runtara.protocol.errors import ConnectionNotFound

from ..granted import ConnectionValue


class MemoryConnections:
    def __init__(self, bus: MemoryBus, tenant: str, connections: Iterable[ConnectionValue]) -> None:
        self._bus = bus
        self._tenant = tenant
        self._values = {value.name: value for value in connections}
        self._set: dict[str, tuple[int, str | None]] = {}  # when, and by whom

    async def open(self, workflow: str, instance: str, name: str) -> ConnectionValue:
        value = self._values.get(name)
        if value is None:
            raise ConnectionNotFound(connection=name, tenant=self._tenant)
        return value

    @property
    def verbs(self) -> dict[str, Callable[[bytes], object]]:
        return {"connections": self._list, "set_connection": self._set_one, "forget_connection": self._forget}

    def _list(self, question: bytes) -> list[ConnectionView]:
        return [self._view(self._values[name]) for name in sorted(self._values)]

    def _set_one(self, question: bytes) -> ConnectionView:
        request = msgspec.json.decode(question, type=SetConnection)
        check_connection(request.name, request.type, request.fields)
        value = ConnectionValue(request.name, request.type, read_fields(request.fields))
        self._values[value.name] = value
        self._set[value.name] = (self._bus.clock.now_us(), request.actor)
        return self._view(value)

    def _forget(self, question: bytes) -> bool:
        name = msgspec.json.decode(question, type=str)
        if name not in self._values:
            raise ConnectionNotFound(connection=name, tenant=self._tenant)
        del self._values[name]
        return True

    def _view(self, value: ConnectionValue) -> ConnectionView:
        used_by = [
            name
            for (tenant, name), known in sorted(self._bus.engine.workflows.items())
            if tenant == self._tenant and value.name in known.options.connections
        ]
        set_at, set_by = self._set.get(value.name, (0, None))
        return ConnectionView(name=value.name, type=value.type, used_by=used_by, set_at=set_at, set_by=set_by)
