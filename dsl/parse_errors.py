"""What pydantic says is wrong with a part of a document, with codes and suggestions."""

from collections.abc import Iterator
from typing import Final, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .model_base import Model
from .model_conditions import Operation
from .model_values import Composite, Immediate, Reference, Template
from .places import Place, locate
from .problems import CODES
from .suggest import nearest

MAX_SHOWN: Final = 60  # characters of a value in a message

_TAGS: Final[dict[str, type[Model]]] = {
    "<immediate>": Immediate,
    "<reference>": Reference,
    "<composite>": Composite,
    "<template>": Template,
    "<operation>": Operation,
}
_IN_CONDITIONS: Final = frozenset({"E201", "E202", "E203", "E024"})
_VALUE: Final = 'write {"valueType": "immediate", "value": …}, or reference, composite, template'
_CONDITION: Final = 'write {"type": "operation", "op": …, "arguments": […]}, or a value'


class Wrong(NamedTuple):
    code: str
    message: str
    suggestion: str | None
    place: Place


def wrongs(error: ValidationError, cls: type[Model], raw: object) -> Iterator[Wrong]:
    """What is wrong, each with its place within `raw`."""
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        place = locate(raw, loc, missing=detail["type"] == "missing")
        code, message, suggestion = _told(detail, cls, place)
        if code in _IN_CONDITIONS and _is_condition(loc):
            code = "E025"
        yield Wrong(code, message, suggestion, place)


def _told(detail: ErrorDetails, cls: type[Model], place: Place) -> tuple[str, str, str | None]:
    context = detail.get("ctx", {})
    name = str(place[-1]) if place else "the document"
    match detail["type"]:
        case code if code in CODES:
            return code, detail["msg"], context.get("suggestion") or None
        case "extra_forbidden":
            known = _names_at(cls, detail["loc"][:-1])
            return "E201", f"there is no field {name!r} here", nearest(name, known)
        case "missing":
            return "E202", f"{name!r} is missing", None
        case "union_tag_invalid":
            kind, kinds = str(context["tag"]).strip("<>"), [tag.strip("<>") for tag in _TAGS]
            return "E203", f"{kind!r} is no kind of value; {_VALUE}", nearest(kind, kinds)
        case "union_tag_not_found":
            return "E203", f"{name!r} is no value; {_CONDITION if _is_condition(detail['loc']) else _VALUE}", None
        case "enum" | "literal_error":
            allowed = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
            return (
                "E024",
                f"{_shown(detail['input'])} is not allowed for {name!r}: {', '.join(allowed)}",
                nearest(str(detail["input"]), allowed),
            )
        case _:
            says = detail["msg"].removeprefix("Input should ").removeprefix("Value error, ")
            return "E203", f"{name!r} should {says}, not {_shown(detail['input'])}", None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _is_condition(loc: tuple[str | int, ...]) -> bool:
    return "condition" in loc or "<operation>" in loc


def _names_at(cls: type[Model], loc: tuple[str | int, ...]) -> list[str]:
    """The JSON names of the fields that the model has there."""
    for part in loc:
        if isinstance(part, str) and part in _TAGS:
            cls = _TAGS[part]
            continue
        field = next((found for found in cls.model_fields.values() if found.alias == part), None)
        cls = (_model_in(field.annotation) or cls) if field is not None else cls
    return [field.alias or name for name, field in cls.model_fields.items()]


def _model_in(annotation: object) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
