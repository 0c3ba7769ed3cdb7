"""A step as its records, keys and events name it."""

from typing import NamedTuple

from .keys import key_part


class Step(NamedTuple):
    id: str
    type: str
    name: str

    @property
    def key(self) -> str:
        """Its part of a key."""
        return key_part(self.id)
