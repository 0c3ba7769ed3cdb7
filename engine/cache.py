"""Rows of recently used instances, bounded by what they weigh.

Invariant: a row in here is what Postgres holds; whoever could not commit drops what it touched, and a take-over
drops everything.
"""

from collections import OrderedDict
from typing import Final

from runtara.projections.instances import InstanceRow

Id = tuple[str, str]  # tenant, instance

MAX_BYTES: Final = 48 * 1024 * 1024
MAX_ROW_BYTES: Final = 4 * 1024 * 1024  # a heavier one is read from Postgres each time


class InstanceCache:
    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._rows: OrderedDict[Id, tuple[InstanceRow, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, id: Id) -> InstanceRow | None:
        found = self._rows.get(id)
        if found is None:
            return None
        self._rows.move_to_end(id)
        return found[0]

    def put(self, row: InstanceRow) -> None:
        id = (row.tenant, row.instance)
        self.discard(id)
        size = row.size
        if size > MAX_ROW_BYTES:
            return
        self._rows[id] = (row, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._rows.popitem(last=False)
            self._bytes -= dropped

    def discard(self, id: Id) -> None:
        found = self._rows.pop(id, None)
        if found is not None:
            self._bytes -= found[1]

    def clear(self) -> None:
        self._rows.clear()
        self._bytes = 0
