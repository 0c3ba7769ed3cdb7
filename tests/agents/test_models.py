"""Data in its many forms, read as bytes or as text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from runtara.agents import AgentError, Data, FileObject, read_bytes, read_text

DATA: TypeAdapter[Data] = TypeAdapter(Data)
GREETING = "Grüße, 世界\n"


@given(st.binary())
def test_every_form_of_the_same_bytes_reads_the_same(content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    for form in (
        content,
        list(content),
        {"content": encoded},
        {"content": encoded, "filename": "a.bin", "mimeType": "x/y"},
        f"data:application/octet-stream;base64,{encoded}",
    ):
        assert read_bytes(DATA.validate_python(form)) == content


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_reads_as_itself_whatever_marks_it_has(encoding: str) -> None:
    assert read_text(GREETING.encode(encoding)) == GREETING


def test_an_encoding_that_is_named_counts() -> None:
    assert read_text("Grüße".encode("latin-1"), "latin-1") == "Grüße"
    assert read_text("Grüße", "latin-1") == "Grüße", "a text is a text already"


def test_a_text_is_base64_only_where_the_reader_says_so_and_it_looks_so() -> None:
    encoded = base64.b64encode(GREETING.encode()).decode()
    assert read_text(encoded) == encoded
    assert read_text(encoded, base64_text=True) == GREETING
    for word in ("abcd", "a,b\nc,d", "AAAAAAAAAAAAAAAAA", "<xml>aaaaaaaaaa</xml>", ""):
        assert read_text(word, base64_text=True) == word


def test_what_cannot_be_read_is_a_permanent_error_that_shows_nothing_of_it() -> None:
    for data, encoding, reason in (
        (FileObject(content="secret!"), None, "not base64"),
        (b"\xff\xfesecret", "ascii", "no ascii text"),
        (b"secret", "klingon", "no encoding named"),
        ("data:text/plain;base64,secret!", None, "not base64"),
    ):
        with pytest.raises(AgentError, match=reason) as caught:
            read_text(data, encoding)
        assert caught.value.permanent
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [[256], [-1], ["a"], {"filename": "a"}, {"content": "", "extra": 1}, None, 1.5j])
def test_what_is_no_data_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="validation error"):
        DATA.validate_python(wrong)


def test_a_file_object_goes_out_with_the_names_of_json() -> None:
    made = FileObject.of(b"abc", filename="a.txt", mime_type="text/plain")
    assert made.model_dump(by_alias=True) == {"content": "YWJj", "filename": "a.txt", "mimeType": "text/plain"}
    assert FileObject.model_validate(made.model_dump(by_alias=True)) == made
    assert "YWJj" not in repr(made)
