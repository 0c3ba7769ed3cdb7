"""A persistent set of key hashes: adding one makes a new set and leaves the old one as it was.

`decide` keeps the hashes of all keys that an instance has recorded, and a state must never change under whoever holds
it, so each recorded key makes a new set. It is a tuple of frozensets, merged like the bits of a binary counter: an
insert costs O(log n) amortised, and shares all but the smallest sets with its predecessor.

Invariants: hashes live in memory only, within one process (they are Python's own, keyed at random); in JSON the set
is `{}`, and what is read from there is not `complete` until it has been filled again from the log.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec


def key_hash(key: str) -> int:
    """64 bits of `key`, valid within this process only."""
    return hash(key)


class KeySet(msgspec.Struct, frozen=True, eq=False, dict=True):
    """`complete`: holds every recorded key. An incomplete set answers nothing; nothing may be decided on it."""

    _sets: ClassVar[tuple[frozenset[int], ...]] = ()
    complete: ClassVar[bool] = False

    @classmethod
    def of(cls, hashes: Iterable[int] = ()) -> "KeySet":
        """A complete set of `hashes`."""
        members = frozenset(hashes)
        return _made((members,) if members else ())

    def add(self, item: int) -> "KeySet":
        """This set and `item`. An incomplete set stays as it is: it is read again from the log, `item` with it."""
        if not self.complete:
            return self
        sets = self._sets
        carry = frozenset((item,))
        kept = len(sets)
        while kept and len(sets[kept - 1]) <= len(carry):
            kept -= 1
            carry = sets[kept] | carry
        return _made((*sets[:kept], carry))

    def __contains__(self, item: int) -> bool:
        for members in self._sets:  # noqa: SIM110  (any() costs three times as much, and this is the hot path)
            if item in members:
                return True
        return False

    def __iter__(self) -> Iterator[int]:
        for members in self._sets:
            yield from members

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and self.complete == other.complete and set(self) == set(other)

    def __hash__(self) -> int:
        return hash(frozenset(self))


def _made(sets: tuple[frozenset[int], ...]) -> KeySet:
    made = KeySet()
    fields = made.__dict__
    fields["_sets"] = sets
    fields["complete"] = True
    return made


UNKNOWN = KeySet()
NONE = KeySet.of()
