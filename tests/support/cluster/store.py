"""What the stand-in API server keeps: objects, each with its resource version, and the changes that watches are told.

As the real one: one counter for all objects, each write takes the next; a watch begins after a version and is told what
came later; what is older than the last `compact` cannot be watched from any more.
"""

import asyncio
import copy
import secrets
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]
KINDS: Final = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret")}


class Gone(Exception):
    """Too old a version."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by (plural, namespace, name)."""

    def __init__(self) -> None:
        self.version = 1_000
        self._compacted = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._changes: list[tuple[int, str, str, Object]] = []  # version, plural, type, object
        self._news = asyncio.Event()

    def all(self, plural: str, namespace: str | None = None) -> list[Object]:
        return [
            copy.deepcopy(one)
            for (kind, where, _), one in sorted(self._objects.items())
            if kind == plural and namespace in (None, where)
        ]

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self._objects.get((plural, namespace, name)))

    def create(self, plural: str, namespace: str, given: Object) -> Object:
        """The caller has checked that there is none of that name."""
        made = copy.deepcopy(given)
        made["metadata"].update(namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
        self._put(plural, "ADDED", made)
        return copy.deepcopy(made)

    def update(self, plural: str, changed: Object) -> Object:
        meta = changed["metadata"]
        assert (plural, meta["namespace"], meta["name"]) in self._objects
        made = copy.deepcopy(changed)
        self._put(plural, "MODIFIED", made)
        return copy.deepcopy(made)

    def remove(self, plural: str, namespace: str, name: str) -> None:
        found = self._objects.pop((plural, namespace, name), None)
        if found is not None:
            self._say(plural, "DELETED", found)

    def compact(self) -> None:
        """From now on nobody may watch from before the present version."""
        self._compacted = self.version
        self._changes.clear()

    def bookmark(self) -> None:
        """Tell all watches the present version."""
        for plural, (api_version, kind) in KINDS.items():
            bare = {"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": str(self.version)}}
            self._changes.append((self.version, plural, "BOOKMARK", bare))
        self._wake()

    async def changes(self, plural: str, namespace: str, after: int) -> AsyncIterator[tuple[str, Object]]:
        """Raises `Gone`."""
        if after < self._compacted:
            raise Gone
        told = len([one for one in self._changes if one[0] <= after])
        while True:
            news = self._news
            if told > len(self._changes):  # compacted meanwhile; what follows is new
                told = 0
            for _, kind, type, one in self._changes[told:]:
                told += 1
                if kind == plural and one["metadata"].get("namespace", namespace) == namespace:
                    yield type, one
            await news.wait()

    def _put(self, plural: str, type: str, made: Object) -> None:
        meta = made["metadata"]
        self._objects[plural, meta["namespace"], meta["name"]] = made
        self._say(plural, type, made)

    def _say(self, plural: str, type: str, made: Object) -> None:
        self.version += secrets.randbelow(3) + 1  # other namespaces write too
        made["metadata"]["resourceVersion"] = str(self.version)
        self._changes.append((self.version, plural, type, copy.deepcopy(made)))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
