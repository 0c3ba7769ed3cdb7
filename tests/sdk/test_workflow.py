"""A workflow's input is one object: typed for its code, JSON for everyone else."""

import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import pydantic
import pytest

from runtara.protocol.errors import InvalidId, InvalidInput
from runtara.protocol.records import Options
from runtara.sdk import Context, Workflow, sync, workflow


@dataclasses.dataclass
class Order:
    id: str
    price: Decimal


class Address(pydantic.BaseModel):
    city: str


class Customer(pydantic.BaseModel):
    name: str
    address: Address | None = None


@workflow
async def fulfil(ctx: Context, orders: list[Order], customer: Customer, rush: bool = False) -> dict[str, Decimal]:
    """Ship what was ordered."""
    return {}


@workflow(name="night-run", timeout=timedelta(hours=1), durability="log", restarts=7, linger=timedelta(seconds=5))
def nightly(ctx: sync.Context, count: int) -> int:
    return count


INPUT = {"orders": [{"id": "o-1", "price": "9.90"}], "customer": {"name": "Ann"}}


def test_the_input_is_converted_into_the_annotated_types() -> None:
    arguments = fulfil.arguments(orjson.dumps(INPUT))
    assert arguments == {"orders": [Order("o-1", Decimal("9.90"))], "customer": Customer(name="Ann"), "rush": False}


def test_typed_arguments_become_the_input_object() -> None:
    text = fulfil.encode_input([Order("o-1", Decimal("9.90"))], customer=Customer(name="Ann"))
    assert orjson.loads(bytes(text)) == {**INPUT, "customer": {"name": "Ann", "address": None}}


@pytest.mark.parametrize(
    ("input", "reason"),
    [
        ({**INPUT, "rush": "yes"}, r"Expected `bool`.*\$\.rush"),
        ({"orders": []}, "customer"),
        ({**INPUT, "colour": 1}, "colour"),
        ({**INPUT, "customer": {}}, "name"),
        ([1], "Expected `object`"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_saying_what(input: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        fulfil.arguments(orjson.dumps(input))


def test_a_call_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput, match="count"):
        nightly.encode_input()  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="Expected `int`"):
        nightly.encode_input(count="x")  # type: ignore[arg-type]


def test_the_parameters_have_a_json_schema() -> None:
    schema = fulfil.json_schema
    assert schema["required"] == ["orders", "customer"]
    assert schema["properties"]["rush"] == {"type": "boolean", "default": False}
    assert set(schema["$defs"]) >= {"Order", "Address"}
    assert nightly.json_schema["properties"] == {"count": {"type": "integer"}}


def test_name_and_options_travel_with_the_registration() -> None:
    assert (fulfil.name, fulfil.colour, nightly.colour) == ("fulfil", "async", "blocking")
    registration = nightly.registration(code_version="abc")
    assert registration.workflow == "night-run"
    assert registration.options == Options(timeout_us=3_600_000_000, durability="log", restarts=7, linger_us=5_000_000)
    assert fulfil.registration(code_version="abc").description == "Ship what was ordered."
    msgspec.json.encode(registration)


def test_the_result_comes_back_in_its_annotated_type() -> None:
    assert fulfil.decode_result(fulfil.encode_result({"a": Decimal("1.5")})) == {"a": Decimal("1.5")}


def test_calling_a_workflow_calls_its_function() -> None:
    assert nightly(None, 3) == 3


async def no_context() -> None: ...


async def many(ctx: Context, *orders: str) -> None: ...


@pytest.mark.parametrize(
    ("fn", "reason"), [(no_context, "takes no context"), (many, r"\*orders"), ("x", "not for str")]
)
def test_a_function_that_cannot_be_a_workflow_is_refused(fn: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        workflow(fn)


def test_a_name_that_is_no_id_is_refused() -> None:
    with pytest.raises(InvalidId):
        workflow(name="a.b")(fulfil.fn)


def test_an_annotation_that_does_not_exist_at_run_time_is_named() -> None:
    async def lost(ctx: Context, order: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    made: Workflow[Any, None] = workflow(lost)
    with pytest.raises(TypeError, match="'Missing' of 'order'"):
        made.arguments(b"{}")
