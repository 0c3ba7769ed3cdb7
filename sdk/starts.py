"""What can be started: a workflow with its arguments, or a workflow's name with its input by parameter; and labels."""

from collections.abc import Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

from msgspec import Raw

from runtara.protocol.errors import BadInput
from runtara.protocol.ids import check_id
from runtara.protocol.labels import label_fault

from .values import encode

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Startable(Protocol[P, R_co]):
    """A `Workflow`, as those see it who start it. `P` are its parameters, `R_co` is what it returns."""

    name: str

    def encode_input(self, *args: P.args, **kwargs: P.kwargs) -> Raw: ...
    def decode_result(self, result: bytes | Raw) -> R_co: ...


def named_input(
    workflow: Startable[..., Any] | str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, Raw]:
    """The workflow's name, and the input as JSON."""
    if not isinstance(workflow, str):
        return workflow.name, workflow.encode_input(*args, **kwargs)
    given = dict(zip(("input",), args, strict=False)) | dict(kwargs)
    if len(args) > 1 or given.keys() - {"input"}:
        raise TypeError('by name, a workflow takes its input as one mapping: start("name", {"parameter": value})')
    return check_id(workflow, "workflow"), Raw(encode(given.get("input") or {}, key="input"))


def checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Raises `BadInput` if the platform would not take them."""
    given = dict(labels or {})
    fault = label_fault(given)
    if fault is not None:
        raise BadInput(reason=f"{fault}; labels are short texts by name: labels={{'team': 'billing'}}")
    return given
