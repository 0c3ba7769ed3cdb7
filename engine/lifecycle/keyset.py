"""A persistent set of key hashes: adding one makes a new set and leaves the old one as it was.

`decide` keeps the hashes of all keys that an instance has recorded, and a state must never change under whoever holds
it, so each recorded key makes a new set. A set is the first `size` entries of a table that only grows and that it
shares with its successors; the newest one adds to that table, any older one (whose successors were thrown away with a
batch that could not be committed) to a copy. An insert so costs the same however many there are.

Invariants: hashes live in memory only, within one process (they are Python's own, keyed at random); in JSON the set
is `{}`, and what is read from there is not `complete` until it has been filled again from the log.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import ClassVar

import msgspec


def key_hash(key: str) -> int:
    """64 bits of `key`, valid within this process only."""
    return hash(key)


class KeySet(msgspec.Struct, frozen=True, eq=False, dict=True):
    """`complete`: holds every recorded key. An incomplete set answers nothing; nothing may be decided on it."""

    _table: ClassVar[dict[int, int]] = {}  # hash → its place
    _size: ClassVar[int] = 0
    complete: ClassVar[bool] = False

    @classmethod
    def of(cls, hashes: Iterable[int] = ()) -> "KeySet":
        """A complete set of `hashes`."""
        table = {item: place for place, item in enumerate(dict.fromkeys(hashes))}
        return _made(table, len(table))

    def add(self, item: int) -> "KeySet":
        """This set and `item`. An incomplete set stays as it is: it is read again from the log, `item` with it."""
        if not self.complete or item in self:
            return self
        table, size = self._table, self._size
        if len(table) != size:
            table = dict(islice(table.items(), size))
        table[item] = size
        return _made(table, size + 1)

    def __contains__(self, item: int) -> bool:
        return self._table.get(item, self._size) < self._size

    def __iter__(self) -> Iterator[int]:
        return islice(self._table, self._size)

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and self.complete == other.complete and set(self) == set(other)

    def __hash__(self) -> int:
        return hash(frozenset(self))


def _made(table: dict[int, int], size: int) -> KeySet:
    made = KeySet()
    fields = made.__dict__
    fields["_table"] = table
    fields["_size"] = size
    fields["complete"] = True
    return made


UNKNOWN = KeySet()
NONE = KeySet.of()
