"""Outcomes of waits, said again: the first word to a resident attempt travels at most once.

Each is repeated with the next heartbeats of its worker and then left alone: code that still waits asks by itself, and
nothing that an attempt reports would say which outcomes it has heard.

Invariant: bounded by `State.unseen`, which holds the newest outcomes of a resident instance only.
"""

from typing import Final

from .cache import Id
from .lifecycle import State

REPEATS: Final = 2  # one heartbeat may follow the outcome at once, on the same broken connection


class Retelling:
    """What is still to be said again, by instance: versions of events, and how often."""

    def __init__(self) -> None:
        self._owed: dict[Id, dict[int, int]] = {}

    def changed(self, id: Id, old: State | None, new: State) -> None:
        if new.claim is None:
            self._owed.pop(id, None)
            return
        before = old.unseen if old is not None else {}
        if new.unseen is before:
            return
        fresh = [told.version for key, told in new.unseen.items() if before.get(key) is not told]
        if fresh:
            self._owed.setdefault(id, {}).update(dict.fromkeys(fresh, REPEATS))

    def due(self, id: Id) -> list[int]:
        """The versions to tell now."""
        owed = self._owed.get(id)
        if owed is None:
            return []
        versions = list(owed)
        left = {version: count - 1 for version, count in owed.items() if count > 1}
        if left:
            self._owed[id] = left
        else:
            del self._owed[id]
        return versions
