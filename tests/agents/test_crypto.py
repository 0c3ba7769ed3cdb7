"""The agent `crypto`: digests of the literature, and a secret that does not show."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from runtara.agents.crypto import HmacData
from tests.support.perform import perform, refused

HELLO = "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e"
RFC_4231_CASE_2 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize(
    ("capability", "inputs", "expected"),
    [
        ("hash", {"data": "Hello World"}, (HELLO, "sha256", "hex")),
        ("hash", {"data": list(b"Hello World")}, (HELLO, "sha256", "hex")),
        ("hash", {"data": {"content": "SGVsbG8gV29ybGQ="}}, (HELLO, "sha256", "hex")),
        (
            "hash",
            {"data": "Hello World", "output_format": "base64"},
            (base64.b64encode(bytes.fromhex(HELLO)).decode(), "sha256", "base64"),
        ),
        ("hash", {"data": "", "algorithm": "md5"}, ("d41d8cd98f00b204e9800998ecf8427e", "md5", "hex")),
        ("hash", {"data": "abc", "algorithm": "sha1"}, ("a9993e364706816aba3e25717850c26c9cd0d89d", "sha1", "hex")),
        ("hash", {"data": "ü", "algorithm": "sha512"}, (hashlib.sha512("ü".encode()).hexdigest(), "sha512", "hex")),
        ("hash", {"data": HELLO}, (hashlib.sha256(HELLO.encode()).hexdigest(), "sha256", "hex")),
        (
            "hmac",
            {"data": "what do ya want for nothing?", "secret": "Jefe"},
            (RFC_4231_CASE_2, "hmac-sha256", "hex"),
        ),
        (
            "hmac",
            {"data": "x", "secret": "ü", "algorithm": "hmac-sha512", "output_format": "base64"},
            (
                base64.b64encode(hmac.digest("ü".encode(), b"x", "sha512")).decode(),
                "hmac-sha512",
                "base64",
            ),
        ),
        ("hmac", {"data": "x", "secret": 7}, (hmac.digest(b"7", b"x", "sha256").hex(), "hmac-sha256", "hex")),
    ],
)
def test_each_digest(capability: str, inputs: dict[str, object], expected: tuple[str, str, str]) -> None:
    digest, algorithm, form = expected
    found: JsonValue = perform("crypto", capability, inputs)
    assert found == {"hash": digest, "algorithm": algorithm, "format": form}


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("hash", {}, "STEP_REQUIRED_INPUT_MISSING"),
        ("hash", {"data": None}, "STEP_REQUIRED_INPUT_NULL"),
        ("hash", {"data": "a", "algorithm": "crc32"}, "STEP_INVALID_INPUT"),
        ("hash", {"data": {"content": "?"}}, "AGENT_INVALID_DATA"),
        ("hmac", {"data": "a"}, "STEP_REQUIRED_INPUT_MISSING"),
        ("hmac", {"data": "a", "secret": "s", "algorithm": "sha256"}, "STEP_INVALID_INPUT"),
    ],
)
def test_what_is_refused(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("crypto", capability, inputs).code == code


def test_the_secret_shows_nowhere() -> None:
    inputs = HmacData(data="a", secret="s3cr3t")  # type: ignore[arg-type]
    assert "s3cr3t" not in repr(inputs) + str(inputs) + inputs.model_dump_json()
    error = refused("crypto", "hmac", {"data": "a", "secret": "s3cr3t", "output_format": "s3cr3t"})
    assert "s3cr3t" not in str(error) + repr(error.to_record())


@given(st.binary(max_size=200))
def test_every_form_of_the_same_bytes_has_the_same_digest(content: bytes) -> None:
    file = {"content": base64.b64encode(content).decode()}
    forms = [perform("crypto", "hash", {"data": form}) for form in (content, list(content), file)]
    assert forms[0] == forms[1] == forms[2]
