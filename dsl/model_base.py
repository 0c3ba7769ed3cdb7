"""What the parts of a document have in common: frozen, JSON names by alias, unknown fields refused, null is absent."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        serialize_by_alias=True,
    )

    keeps_null: ClassVar[frozenset[str]] = frozenset()
    """JSON names of the fields whose null says something."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, raw: object) -> object:
        """Editors write `"label": null` for what they have not."""
        if isinstance(raw, dict) and None in raw.values():
            return {name: value for name, value in raw.items() if value is not None or name in cls.keeps_null}
        return raw
