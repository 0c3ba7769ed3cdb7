"""What the model of a capability's inputs says about each field: its names, and what a value may be.

Invariants: worked out once a model; aliases count as much as the name itself.
"""

from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownField:
    """A field, by the names under which it is accepted, its own first. `is_text`: text fits, and no boolean does."""

    names: tuple[str, ...]
    info: FieldInfo
    required: bool
    nullable: bool
    is_text: bool

    @property
    def name(self) -> str:
        return self.names[0]


@lru_cache(maxsize=1024)
def known_fields(model: type[BaseModel]) -> tuple[KnownField, ...]:
    """The fields of `model`, in order. A required field takes null only if its annotation says `| None`."""
    return tuple(_field(name, info) for name, info in model.model_fields.items())


def _field(name: str, info: FieldInfo) -> KnownField:
    kinds = alternatives(info.annotation)
    return KnownField(
        names=tuple(dict.fromkeys((name, *_aliases(info)))),
        info=info,
        required=info.is_required(),
        nullable=type(None) in kinds or (Any in kinds and not info.is_required()),
        is_text=str in kinds and bool not in kinds,
    )


def alternatives(annotation: object) -> tuple[object, ...]:
    """The members of a union, unions within it opened and `Annotated` taken off; else the annotation itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin is Union or isinstance(annotation, UnionType):
        return tuple(kind for member in get_args(annotation) for kind in alternatives(member))
    return (type(None) if annotation is None else annotation,)


def _aliases(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return [one for one in alias.choices if isinstance(one, str)]
    return [alias] if isinstance(alias, str) else []
