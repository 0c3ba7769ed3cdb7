"""Calling by data: inputs are made to fit or refused, outputs are JSON, errors are the agent's and hold no secret."""

import traceback
from datetime import timedelta
from typing import Any

import pytest

from runtara.agents import AgentError
from runtara.agents.agent import Capability, agent_of
from runtara.agents.calls import call, prepare, unknown_fields
from runtara.agents.connections import Connection, parse_connection
from tests.support.parcels import Parcels, Weigh

SECRET = "s3cr3t-t0ken"
BEARER = parse_connection("http_bearer", {"token": SECRET})
SFTP = parse_connection("sftp", {"host": "h", "username": "u"})


def of(id: str) -> Capability:
    found = agent_of(Parcels).find(id)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"grams": "250"}, "grams", 250),
        ({"grams": 250.0}, "grams", 250),
        ({"grams": "250.0"}, "grams", 250),
        ({"grams": True}, "grams", 1),
        ({"grams": 1, "label": 17}, "label", "17"),
        ({"grams": 1, "label": 1.5}, "label", "1.5"),
        ({"grams": 1, "label": True}, "label", "true"),
        ({"grams": 1, "label": False}, "label", "false"),
        ({"grams": 1, "fragile": "true"}, "fragile", True),
        ({"grams": 1, "fragile": 0}, "fragile", False),
        ({"grams": 1, "factor": "2.5"}, "factor", 2.5),
        ({"grams": 1, "note": None}, "note", None),
        ({"grams": 1, "note": 5}, "note", "5"),
        ({"grams": 1, "label": None}, "label", "parcel"),
        ({"grams": 1, "content": [97, 98]}, "content", [97, 98]),
    ],
)
def test_text_numbers_and_booleans_become_what_the_field_asks_for(
    given: dict[str, object], field: str, value: object
) -> None:
    found = getattr(prepare(of("weigh"), given), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "code", "fields"),
    [
        ({}, "STEP_REQUIRED_INPUT_MISSING", ["grams"]),
        ({"grams": None}, "STEP_REQUIRED_INPUT_NULL", ["grams"]),
        ({"grams": "heavy"}, "STEP_INVALID_INPUT", ["grams"]),
        ({"grams": "2.5"}, "STEP_INVALID_INPUT", ["grams"]),
        ({"grams": 1, "fragile": "perhaps", "kind": "cat"}, "STEP_INVALID_INPUT", ["fragile", "kind"]),
        ({"grams": 1, "label": ["a"]}, "STEP_INVALID_INPUT", ["label"]),
        ({"grams": 1, "label": {}}, "STEP_INVALID_INPUT", ["label"]),
        ({"grams": 1, "content": [256]}, "STEP_INVALID_INPUT", ["content"]),
    ],
)
def test_what_does_not_fit_is_a_permanent_error_that_names_the_fields(
    given: dict[str, object], code: str, fields: list[str]
) -> None:
    with pytest.raises(AgentError) as caught:
        prepare(of("weigh"), given)
    assert (caught.value.code, caught.value.attributes["fields"], caught.value.permanent) == (code, fields, True)


def test_values_do_not_show_in_the_error() -> None:
    with pytest.raises(AgentError) as caught:
        prepare(of("weigh"), {"grams": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_required_input_takes_null_only_if_its_type_says_so() -> None:
    assert prepare(of("return"), {"value": 1, "must_be_told": None}).model_dump()["must_be_told"] is None
    with pytest.raises(AgentError, match="'must_be_told'") as missing:
        prepare(of("return"), {"value": 1})
    with pytest.raises(AgentError, match="'value'") as null:
        prepare(of("return"), {"value": None, "must_be_told": "x"})
    assert (missing.value.code, null.value.code) == ("STEP_REQUIRED_INPUT_MISSING", "STEP_REQUIRED_INPUT_NULL")


def test_unknown_names_are_left_aside_and_can_be_asked_for() -> None:
    given = {"grams": 1, "color": "red"}
    assert prepare(of("weigh"), given) == Weigh(grams=1)
    assert unknown_fields(of("weigh"), given) == ("color",)


@pytest.mark.parametrize("value", [1, 1.5, True, "text", [], {}, {"a": [None, {"b": "ü"}]}])
async def test_any_json_value_goes_in_and_comes_out(value: Any) -> None:
    assert await call(of("return"), {"value": value, "must_be_told": None}) == value


async def test_a_record_comes_out_as_plain_json() -> None:
    answer = await call(of("weigh"), Weigh(grams=250))
    assert answer == {"kilograms": 0.25, "label": "parcel", "thread": "MainThread"}


async def test_a_plain_method_runs_in_a_thread_unless_it_says_it_is_quick() -> None:
    answer = await call(of("weigh-in-a-thread"), {"grams": 1})
    assert isinstance(answer, dict)
    assert answer["thread"] != "MainThread"


async def test_bytes_are_read_in_every_form() -> None:
    for content in ("abc", [97, 98, 99], {"content": "YWJj"}, "data:;base64,YWJj"):
        assert await call(of("read"), {"grams": 1, "content": content}) == "abc"


async def test_what_json_cannot_carry_is_an_error_of_the_agent() -> None:
    with pytest.raises(AgentError) as caught:
        await call(of("return"), {"value": object(), "must_be_told": None})
    assert caught.value.code == "AGENT_INVALID_OUTPUT"


async def test_connections_are_asked_for_and_checked() -> None:
    assert await call(of("ask"), {"grams": 1}) == "without"
    assert await call(of("ask"), {"grams": 1}, connection=BEARER) == "with"
    assert await call(of("send"), {"grams": 1}, connection=BEARER) == {"sent": "HttpBearer"}
    cases: list[tuple[str, Connection | None, str]] = [
        ("send", None, "STEP_CONNECTION_MISSING"),
        ("send", SFTP, "STEP_CONNECTION_UNSUITABLE"),
        ("weigh", BEARER, "STEP_CONNECTION_UNSUITABLE"),
    ]
    for id, connection, code in cases:
        with pytest.raises(AgentError) as caught:
            await call(of(id), {"grams": 1}, connection=connection)
        assert caught.value.code == code


@pytest.mark.parametrize("how", ["lose", "crash"])
async def test_no_secret_of_a_connection_is_in_an_error_or_its_traceback(how: str) -> None:
    with pytest.raises(AgentError) as caught:
        await call(of("send"), {"grams": 1, "label": how}, connection=BEARER)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.to_record())
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("how", "code", "category"),
    [
        ("permanent", "AGENT_FAILED", "permanent"),
        ("later", "AGENT_FAILED", "transient"),
        ("timeout", "AGENT_FAILED", "transient"),
        ("other", "AGENT_FAILED", "transient"),
        ("hang", "STEP_TIMEOUT", "transient"),
    ],
)
async def test_whatever_it_raises_becomes_an_agent_error(how: str, code: str, category: str) -> None:
    patience = timedelta(seconds=0.05 if how == "hang" else 60)
    with pytest.raises(AgentError) as caught:
        await call(of("fail"), {"how": how}, timeout=patience)
    assert (caught.value.code, caught.value.category) == (code, category)
    assert caught.value.retry_after == (timedelta(seconds=7) if how == "later" else None)
