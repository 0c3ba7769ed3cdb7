"""A step as its records, keys and events name it."""

from dataclasses import dataclass

from .keys import key_part


@dataclass(frozen=True, slots=True)
class Step:
    id: str
    type: str
    name: str

    @property
    def key(self) -> str:
        """Its part of a key."""
        return key_part(self.id)
