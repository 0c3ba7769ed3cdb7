"""The catalogue says what the code does: names, types, defaults, choices, promises."""

import json

import pytest

from runtara.agents.agent import agent_of
from runtara.agents.catalogue import Field, catalogue, fields, output_schema
from runtara.agents.registry import Registry, registry
from tests.support.parcels import Parcels

SEND = agent_of(Parcels).capabilities["send"]


def test_the_inputs_of_a_capability_are_described() -> None:
    by_name = {field.name: field for field in fields(SEND)}
    assert list(by_name) == ["grams", "label", "fragile", "kind", "factor", "note", "content"]
    assert by_name["grams"] == Field(
        names=("grams",), types=("integer",), required=True, nullable=False, default=None, enum=(),
        description="What it weighs.", examples=(250,),
    )  # fmt: skip
    assert (by_name["label"].default, by_name["label"].types) == ("parcel", ("string",))
    assert by_name["kind"].enum == ("letter", "box")
    assert (by_name["note"].nullable, by_name["note"].types) == (True, ("string",))
    assert by_name["content"].types == ("string", "array", "object")
    anything = {field.name: field for field in fields(agent_of(Parcels).capabilities["return"])}
    assert (anything["value"].types, anything["value"].required) == ((), True)


def test_an_output_has_a_schema_of_what_comes_out() -> None:
    assert output_schema(SEND)["type"] == "object"
    assert set(output_schema(agent_of(Parcels).capabilities["weigh"])["properties"]) == {"kilograms", "label", "thread"}


def test_the_catalogue_is_json_and_the_same_each_time() -> None:
    found = Registry((("parcels", "tests.support.parcels:Parcels"),))
    made = json.dumps(catalogue(found))
    assert json.dumps(catalogue(found)) == made
    read = json.loads(made)
    (entry,) = read["agents"]
    send = next(one for one in entry["capabilities"] if one["id"] == "send")
    assert (send["sideEffects"], send["idempotent"], send["rateLimited"]) == (True, False, True)
    assert (send["errors"], send["connections"]) == (["PARCEL_LOST"], ["http_bearer", "http_basic"])
    assert {one["id"] for one in read["connections"]} == {"http_bearer", "http_api_key", "http_basic", "sftp"}


def test_ours_are_all_in_it_each_with_a_description_and_inputs_that_have_one() -> None:
    made = catalogue(registry())
    assert json.dumps(made)
    for agent in registry().agents():
        assert agent.description
        for capability in agent.capabilities.values():
            assert capability.description, capability.name
            assert [field.name for field in fields(capability) if not field.description] == [], capability.name


REQUIRED = object()
PROMISED: dict[tuple[str, str], dict[str, object]] = {
    ("http", "http-request"): {
        "method": "GET", "url": REQUIRED, "headers": {}, "query_parameters": {}, "body": None, "body_type": "json",
        "response_type": "json", "timeout_ms": 30_000, "fail_on_error": True,
    },
    ("sftp", "sftp-list-files"): {"path": REQUIRED},
    ("sftp", "sftp-download-file"): {"path": REQUIRED, "response_format": "text"},
    ("sftp", "sftp-upload-file"): {"path": REQUIRED, "content": REQUIRED, "content_format": "text"},
    ("sftp", "sftp-delete-file"): {"path": REQUIRED},
}  # fmt: skip


@pytest.mark.parametrize("agent", ["http", "sftp"])
def test_http_and_sftp_have_what_json_workflows_were_promised(agent: str) -> None:
    found = {
        (agent, capability.id): {
            field.name: REQUIRED if field.required else field.default for field in fields(capability)
        }
        for capability in registry().agent(agent).capabilities.values()
    }
    assert found == {names: inputs for names, inputs in PROMISED.items() if names[0] == agent}
