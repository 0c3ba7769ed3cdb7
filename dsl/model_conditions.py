"""Conditions: an operation over values and further operations, or a value that is taken by its truth."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from .model_base import Model
from .model_values import Composite, Immediate, Reference, Template, as_value
from .suggest import nearest


class Operator(StrEnum):
    AND = "AND"
    OR = "OR"
    NOT = "NOT"
    GT = "GT"
    GTE = "GTE"
    LT = "LT"
    LTE = "LTE"
    EQ = "EQ"
    NE = "NE"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    CONTAINS = "CONTAINS"
    IN = "IN"
    NOT_IN = "NOT_IN"
    LENGTH = "LENGTH"
    IS_DEFINED = "IS_DEFINED"
    IS_EMPTY = "IS_EMPTY"
    IS_NOT_EMPTY = "IS_NOT_EMPTY"


class MatchType(StrEnum):
    """How a Switch compares. EQ with an array of matches: any of them. BETWEEN takes [least, greatest], RANGE an object
    of `gte`, `gt`, `lte`, `lt`."""

    GT = "GT"
    GTE = "GTE"
    LT = "LT"
    LTE = "LTE"
    EQ = "EQ"
    NE = "NE"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    CONTAINS = "CONTAINS"
    IN = "IN"
    NOT_IN = "NOT_IN"
    IS_DEFINED = "IS_DEFINED"
    IS_EMPTY = "IS_EMPTY"
    IS_NOT_EMPTY = "IS_NOT_EMPTY"
    BETWEEN = "BETWEEN"
    RANGE = "RANGE"


OF_QUERIES: Final = frozenset({"SIMILARITY_GTE", "MATCH", "COSINE_DISTANCE_LTE", "L2_DISTANCE_LTE"})
"""Operators of the Runtara engine's object store, which no workflow condition has."""

ELSEWHERE: Final = OF_QUERIES | frozenset(Operator) | frozenset(MatchType)

_UNARY: Final = frozenset(
    {Operator.NOT, Operator.LENGTH, Operator.IS_DEFINED, Operator.IS_EMPTY, Operator.IS_NOT_EMPTY}
)
_ANY_NUMBER: Final = frozenset({Operator.AND, Operator.OR})


def arguments_of(operator: Operator) -> tuple[int, int | None]:
    """The least and the greatest number of arguments; None: any number."""
    if operator in _ANY_NUMBER:
        return 1, None
    return (1, 1) if operator in _UNARY else (2, 2)


def _operator(raw: object, known: type[Operator] | type[MatchType], place: str) -> object:
    names = [operator.value for operator in known]
    if not isinstance(raw, str):
        raise PydanticCustomError("E025", "an operator is a text such as EQ")
    if raw in names:
        return raw
    if raw in ELSEWHERE:
        raise PydanticCustomError("E027", "{operator} is not allowed in {place}", {"operator": raw, "place": place})
    suggestion = nearest(raw, names)
    raise PydanticCustomError(
        "E025", "there is no operator {operator}", {"operator": raw, "suggestion": suggestion or ""}
    )


class Operation(Model):
    type: Literal["operation"] = "operation"
    op: Annotated[Operator, BeforeValidator(lambda raw: _operator(raw, Operator, "a condition"))]
    arguments: "list[Condition]" = Field(default_factory=list)


def _kind(raw: object) -> str | None:
    if isinstance(raw, Operation) or (isinstance(raw, Mapping) and ("op" in raw or raw.get("type") == "operation")):
        return "<operation>"
    kind = raw.get("valueType") if isinstance(raw, Mapping) else getattr(raw, "value_type", None)
    return f"<{kind}>" if isinstance(kind, str) else None


def _unwrapped(raw: object) -> object:
    if isinstance(raw, dict) and raw.get("type") == "value" and "valueType" in raw:
        return {name: value for name, value in raw.items() if name != "type"}
    return as_value(raw)


Condition = Annotated[
    Annotated[
        Annotated[Operation, Tag("<operation>")]
        | Annotated[Immediate, Tag("<immediate>")]
        | Annotated[Reference, Tag("<reference>")]
        | Annotated[Composite, Tag("<composite>")]
        | Annotated[Template, Tag("<template>")],
        Discriminator(_kind),
    ],
    BeforeValidator(_unwrapped),
]
"""A plain number, text, truth value or null stands for itself; `{"type": "value", "valueType": …}` for the value."""

MatchOperator = Annotated[MatchType, BeforeValidator(lambda raw: _operator(raw, MatchType, "a Switch"))]

Operation.model_rebuild()
