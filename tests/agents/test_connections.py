"""Connections: typed, and silent about their secrets."""

import pickle
import traceback

import pytest

from runtara.agents.connections import HttpApiKey, connection_types, parse_connection, redact
from runtara.protocol.errors import InvalidConnection

SECRET = "s3cr3t-value"
EXAMPLES: dict[str, dict[str, object]] = {
    "http_bearer": {"token": SECRET, "base_url": "https://api.example.org/v1"},
    "http_api_key": {"api_key": SECRET, "header_name": "X-Key"},
    "http_basic": {"username": "ada", "password": SECRET},
    "sftp": {"host": "files", "port": 2222, "username": "ada", "private_key": SECRET, "passphrase": "also-" + SECRET},
}


@pytest.mark.parametrize("type", EXAMPLES)
def test_it_is_typed_and_shows_no_secret(type: str) -> None:
    made = parse_connection(type, EXAMPLES[type])
    assert SECRET in set(made.secrets())
    assert SECRET not in f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"
    assert set(connection_types()[type].secret_fields) == {n for n, v in EXAMPLES[type].items() if SECRET in str(v)} | (
        {"password"} if type == "sftp" else set()
    )
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("type", "fields", "named"),
    [
        ("http_bearer", {"token": ""}, "token"),
        ("http_bearer", {"tokn": SECRET}, "tokn"),
        ("http_bearer", {"token": [SECRET]}, "token"),
        ("http_bearer", {"token": SECRET, "base_url": f"ftp://{SECRET}"}, "base_url"),
        ("http_bearer", {"token": SECRET, "base_url": f"https://ada:{SECRET}@example.org"}, "base_url"),
        ("http_bearer", {"token": SECRET, "base_url": "https:///v1"}, "base_url"),
        ("http_api_key", {"api_key": SECRET, "header_name": f"X: {SECRET}\r\n"}, "header_name"),
        ("sftp", {"host": "a", "username": "u", "port": 70_000, "password": SECRET}, "port"),
        ("ftp", {}, "there are http_api_key, http_basic, http_bearer, sftp"),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(type: str, fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidConnection) as caught:
        parse_connection(type, fields)
    assert named in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_defaults_are_those_of_the_language() -> None:
    made = parse_connection("http_api_key", {"api_key": SECRET})
    assert isinstance(made, HttpApiKey)
    assert (made.header_name, made.base_url) == ("X-API-Key", None)


def test_secrets_are_taken_out_of_texts_the_longest_first() -> None:
    made = parse_connection("sftp", EXAMPLES["sftp"])
    assert redact(f"log in with {SECRET} and also-{SECRET}", made) == "log in with *** and ***"
    short = parse_connection("http_basic", {"username": "ada", "password": "a"})
    assert redact("a cat sat", short) == "a cat sat"
