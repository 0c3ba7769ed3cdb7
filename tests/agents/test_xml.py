"""The agent `xml`, by JSON and as streams; and what it refuses."""

import base64
import io
import tracemalloc
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from runtara.agents import AgentError
from runtara.agents.xml import XmlOptions, elements
from tests.support.perform import code_of, perform, refused


def parse(data: object, **options: object) -> JsonValue:
    return perform("xml", "from-xml", {"data": data, **options})


def write(value: JsonValue, **options: object) -> str:
    return str(perform("xml", "to-xml", {"value": value, **options}))


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        ("<a/>", {}, {"a": {}}),
        ("<a>x</a>", {}, {"a": "x"}),
        ("<a>  x y </a>", {}, {"a": "x y"}),
        ("<a>  x </a>", {"trim_text": False}, {"a": "  x "}),
        ("<a><b>1</b><b>2</b><c/></a>", {}, {"a": {"b": ["1", "2"], "c": {}}}),
        ("<a><b/><c/><b>2</b></a>", {}, {"a": {"b": [{}, "2"], "c": {}}}),
        ('<a x="1" y="ü">t</a>', {}, {"a": {"@attributes": {"x": "1", "y": "ü"}, "@text": "t"}}),
        ('<a x="1">t</a>', {"include_attributes": False}, {"a": "t"}),
        ('<a x="1">t<b>u</b></a>', {"preserve_text": False}, {"a": {"@attributes": {"x": "1"}, "b": {}}}),
        ("<a>one <b/> two</a>", {}, {"a": {"@text": "one two", "b": {}}}),
        ("<a>&lt;&amp;&#x41;<![CDATA[<x>]]></a>", {}, {"a": "<&A<x>"}),
        ("<!-- c --><?pi x?><a><!-- c -->x<?pi?>y</a>", {}, {"a": "xy"}),
        ('<p:a xmlns:p="urn:p" xmlns="urn:d" p:x="1"><b/></p:a>', {}, {"a": {"@attributes": {"x": "1"}, "b": {}}}),
        (
            '<a xmlns:p="urn:p" x="1" p:x="2"/>',
            {},
            {"a": {"@attributes": {"x": "1", "{urn:p}x": "2"}}},
        ),
        ('<?xml version="1.0" encoding="ISO-8859-1"?><a>ü</a>'.encode("latin-1"), {}, {"a": "ü"}),
        ('<?xml version="1.0" encoding="ISO-8859-1"?><a>ü</a>', {}, {"a": "ü"}),
        ("<a>ü</a>".encode("utf-16"), {}, {"a": "ü"}),
        ("<a>ü</a>".encode("utf-8-sig"), {}, {"a": "ü"}),
        ("<a>ü</a>".encode("latin-1"), {"encoding": "latin1"}, {"a": "ü"}),
        ("<a>€</a>".encode("cp1252"), {"encoding": "windows-1252"}, {"a": "€"}),
        (base64.b64encode("<a>ü</a> ".encode()).decode(), {}, {"a": "ü"}),
        ({"content": base64.b64encode(b"<a/>").decode(), "mimeType": "text/xml"}, {}, {"a": {}}),
        (list(b"<a/>"), {}, {"a": {}}),
        ("<名 値='😀'>テキスト</名>", {}, {"名": {"@attributes": {"値": "😀"}, "@text": "テキスト"}}),
    ],
)
def test_a_document_becomes_json(data: object, options: dict[str, object], expected: JsonValue) -> None:
    assert parse(data, **options) == expected


BOMB = "<!DOCTYPE b [<!ENTITY a 'xxxxxxxxxx'>" + "".join(
    f"<!ENTITY a{n} '{'&a' + str(n - 1 if n > 1 else '') + ';'}{'&a' + str(n - 1 if n > 1 else '') + ';'}'>"
    for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (BOMB + "]><b>&a39;</b>", "XML_DOCTYPE_REFUSED"),
        (BOMB + "]><b x='&a39;'/>", "XML_DOCTYPE_REFUSED"),
        ("<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>", "XML_DOCTYPE_REFUSED"),
        ("<!DOCTYPE a [<!ENTITY % e SYSTEM 'http://127.0.0.1:1/e'> %e;]><a/>", "XML_DOCTYPE_REFUSED"),
        ("<!DOCTYPE a SYSTEM 'http://127.0.0.1:1/a.dtd'><a/>", "XML_DOCTYPE_REFUSED"),
        ("<!DOCTYPE html><html/>", "XML_DOCTYPE_REFUSED"),
        ("<?xml version='1.0'?>\n<!-- c -->\n<!DOCTYPE a []><a/>".encode("utf-16"), "XML_DOCTYPE_REFUSED"),
        ("<a>&undefined;</a>", "XML_PARSE_ERROR"),
        ("<a><b></a>", "XML_PARSE_ERROR"),
        ("<a>", "XML_PARSE_ERROR"),
        ("<a/><b/>", "XML_PARSE_ERROR"),
        ("", "XML_PARSE_ERROR"),
        ("no xml at all", "XML_PARSE_ERROR"),
        ('{"a": 1}', "XML_PARSE_ERROR"),
        ("<a>\x00</a>", "XML_PARSE_ERROR"),
        (b"<a>\xff</a>", "XML_PARSE_ERROR"),
        ("<a>" * 61 + "</a>" * 61, "XML_TOO_DEEP"),
        ("<a>" * 100_000, "XML_TOO_DEEP"),
        (None, "STEP_REQUIRED_INPUT_NULL"),
    ],
)
def test_what_is_no_document_or_would_do_harm_is_refused(data: object, code: str) -> None:
    assert refused("xml", "from-xml", {"data": data}).code == code


def test_an_encoding_that_nobody_knows_is_refused() -> None:
    assert refused("xml", "from-xml", {"data": b"<a/>", "encoding": "klingon"}).code == "AGENT_UNKNOWN_ENCODING"


def test_an_xinclude_stays_what_it_is() -> None:
    found = parse('<a xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd"/></a>')
    assert found == {"a": {"include": {"@attributes": {"href": "/etc/passwd"}}}}


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ({"a": {"b": ["1", None, {}], "c": True}}, {}, "<a><b>1</b><b/><b/><c>true</c></a>"),
        ({"a": 1, "b": 2.5}, {}, "<root><a>1</a><b>2.5</b></root>"),
        ({"a": 1}, {"root": "r"}, "<r><a>1</a></r>"),
        (["x", 1], {}, "<root><item>x</item><item>1</item></root>"),
        ("t", {"root": "r"}, "<r>t</r>"),
        ({"a": []}, {}, "<root/>"),
        (
            {"s:E": {"@attributes": {"xmlns:s": "urn:s", "q": 'a"b\n<'}, "s:B": "x<&>\r"}},
            {},
            '<s:E xmlns:s="urn:s" q="a&quot;b&#10;&lt;"><s:B>x&lt;&amp;&gt;&#13;</s:B></s:E>',
        ),
        ({"a": {"@text": "t", "b": "u"}}, {"indent": 2}, "<a>t<b>u</b></a>\n"),
        ({"a": {"b": {"c": "1"}, "d": {}}}, {"indent": 2}, "<a>\n  <b>\n    <c>1</c>\n  </b>\n  <d/>\n</a>\n"),
        ({"a": {"b": "1"}}, {"indent": True}, "<a>\n  <b>1</b>\n</a>\n"),
        (
            {"a": {"b": {"@text": "t", "c": {"d": "1"}}, "e": "2"}},
            {"indent": 1},
            "<a>\n <b>t<c><d>1</d></c></b>\n <e>2</e>\n</a>\n",
        ),
    ],
)
def test_json_becomes_a_document(value: JsonValue, options: dict[str, object], expected: str) -> None:
    assert write(value, declaration=False, **options) == expected


def test_a_declaration_comes_first() -> None:
    assert write({"a": "ü"}) == '<?xml version="1.0" encoding="UTF-8"?>\n<a>ü</a>'
    assert write({"a": {"b": "1"}}, indent=2).splitlines()[:2] == ['<?xml version="1.0" encoding="UTF-8"?>', "<a>"]


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [
        ({"a": {"b c": 1}}, "XML_INVALID_NAME", "a/b c"),
        ({"a": {"1": 1}}, "XML_INVALID_NAME", "'1'"),
        ({"a": {"b><script": 1}}, "XML_INVALID_NAME", "script"),
        ({"a": {"@attributes": {"x y": "1"}}}, "XML_INVALID_NAME", "'x y'"),
        ({"a": {"p:b": 1}}, "XML_INVALID_NAME", "xmlns:p"),
        ({"a": {"xmlns:b": 1}}, "XML_INVALID_NAME", "xmlns:xmlns"),
        ({"a": {"p:b:c": 1}}, "XML_INVALID_NAME", "'p:b:c'"),
        ({"a": {"b": {"@attributes": {"xmlns:p": "urn:p"}}, "p:c": 1}}, "XML_INVALID_NAME", "a/p:c"),
        ({"a": "x\x00"}, "XML_INVALID_TEXT", "U+0000"),
        ({"a": {"@attributes": {"x": "\x1b"}}}, "XML_INVALID_TEXT", "a/@x"),
        ({"a": {"@attributes": "x"}}, "XML_INVALID_VALUE", "@attributes"),
        ({"a": {"@text": {"b": 1}}}, "XML_INVALID_VALUE", "a"),
        ({"a": {"b": [[1]]}}, "XML_INVALID_VALUE", "a/b"),
    ],
)
def test_what_has_no_xml_is_refused_with_its_place(value: JsonValue, code: str, word: str) -> None:
    error = refused("xml", "to-xml", {"value": value})
    assert error.code == code
    assert word in str(error)


def test_depth_is_bounded_in_both_directions() -> None:
    value: JsonValue = "x"
    for _ in range(60):
        value = {"a": value}
    assert parse(write(value)) == value
    assert refused("xml", "to-xml", {"value": {"a": value}}).code == "XML_TOO_DEEP"


names = st.text(st.sampled_from("abzäß_世"), min_size=1, max_size=5)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff", min_codepoint=0x20)
texts = st.text(characters, min_size=1, max_size=10).filter(lambda text: text.strip() == text)
contents: st.SearchStrategy[JsonValue] = st.recursive(
    texts | st.just({}),
    lambda inner: st.dictionaries(names, inner | st.lists(inner, min_size=2, max_size=3), min_size=1, max_size=3),
    max_leaves=10,
)


@given(names, contents, st.dictionaries(names, texts, min_size=1, max_size=2), st.sampled_from([0, 2]))
def test_what_is_written_reads_back(root: str, content: JsonValue, attributes: dict[str, str], indent: int) -> None:
    inner = content if isinstance(content, dict) else {"@text": content}
    value: JsonValue = {root: {"@attributes": cast("JsonValue", attributes), **inner}}
    assert parse(write(value, indent=indent)) == value
    assert parse(write(value, indent=indent).encode("utf-16"), encoding="utf-16", trim_text=indent > 0) == value


@given(st.text(characters | st.sampled_from("\t\n\r"), min_size=1))
def test_without_trimming_every_text_reads_back(text: str) -> None:
    value: JsonValue = {"a": {"@attributes": {"x": text}, "@text": text}}
    assert parse(write(value), trim_text=False) == value


@given(st.binary(max_size=100), st.sampled_from([b"", b"<a>", b"<a x='", b"<!DOCTYPE "]))
def test_no_bytes_do_anything_but_parse_or_be_refused(content: bytes, beginning: bytes) -> None:
    known = {None, "XML_PARSE_ERROR", "XML_TOO_DEEP", "XML_DOCTYPE_REFUSED"}
    assert code_of("xml", "from-xml", {"data": beginning + content}) in known


def test_repeated_elements_are_read_one_by_one() -> None:
    content = b"<o><skip><row>no</row></skip><rows><row id='1'>a</row><x/><row><row>in</row></row><row/></rows></o>"
    found = elements(io.BytesIO(content), "row", XmlOptions(include_attributes=False))
    assert list(found) == ["no", "a", {"row": "in"}, {}]


def test_the_root_may_be_what_is_asked_for_and_nothing_may_be_found() -> None:
    assert list(elements(io.BytesIO(b"<a><b>1</b></a>"), "a")) == [{"b": "1"}]
    assert list(elements(io.BytesIO(b"<a><b>1</b></a>"), "c")) == []


def test_elements_before_the_error_are_given_and_then_the_error() -> None:
    found = elements(io.BytesIO(b"<a>" + b"<b>1</b>" * 50_000 + b"<c></a>"), "b")
    given: list[JsonValue] = []
    with pytest.raises(AgentError, match="XML_PARSE_ERROR"):
        given.extend(found)
    assert len(given) > 40_000


@pytest.mark.parametrize("tag", ["row", "elsewhere"])
def test_a_stream_is_read_in_bounded_memory(tag: str) -> None:
    count = 60_000

    class Document(io.RawIOBase):
        pieces = iter([b"<rows>", *[b"<row><a>1</a><b>text</b></row>" * 100] * (count // 100), b"</rows>"])

        def read(self, size: int = -1) -> bytes:
            return next(self.pieces, b"")

    tracemalloc.start()
    try:
        found = sum(1 for _ in elements(cast("BinaryIO", Document()), tag))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == (count if tag == "row" else 0)
    assert peak < 4 * 1024 * 1024


def test_an_element_with_too_much_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.agents.xml.reading.NODES", 100)
    many = b"<a>" + b"<b/>" * 101 + b"</a>"
    assert refused("xml", "from-xml", {"data": many}).code == "XML_TOO_LARGE"
    assert len(list(elements(io.BytesIO(many), "b"))) == 101
    monkeypatch.setattr("runtara.agents.xml.reading.CHARACTERS", 100)
    long = b"<a>" + b"<b>" + b"x" * 60 + b"</b>" + b"<b>" + b"y" * 60 + b"</b></a>"
    assert refused("xml", "from-xml", {"data": long}).code == "XML_TOO_LARGE"
    assert len(list(elements(io.BytesIO(long), "b"))) == 2
