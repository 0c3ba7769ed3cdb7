"""The agent `text`, capability by capability."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from tests.support.perform import perform, refused

PANGRAM = "The quick brown fox jumps over the lazy dog"

CASES: list[tuple[str, dict[str, object], JsonValue]] = [
    ("trim-normalize", {"text": "  a \n\t b  "}, "a b"),
    ("trim-normalize", {"text": ""}, ""),
    ("extract-first-line", {"text": "a b\r\nc"}, "a b"),
    ("extract-first-line", {"text": ""}, ""),
    ("extract-first-word", {"text": "  a b"}, "a"),
    ("extract-first-word", {"text": " "}, ""),
    ("slugify", {"text": "Hello, World!  Çedilla & Ünïcode"}, "hello-world-cedilla-unicode"),
    ("slugify", {"text": "--a__b--"}, "a-b"),
    ("slugify", {"text": "Straße Łódź Ærø"}, "strasse-lodz-aero"),
    ("slugify", {"text": "日本"}, ""),
    ("hash-text", {"text": "Hello World"}, hashlib.sha256(b"Hello World").hexdigest()),
    ("case-conversion", {"text": "hello wOrld"}, "hello world"),
    ("case-conversion", {"text": "straße", "format": "uppercase"}, "STRASSE"),
    ("case-conversion", {"text": "  hello  o'neil WORLD", "format": "title-case"}, "Hello O'neil World"),
    ("find-replace", {"text": "a.b.c", "pattern": ".", "replacement": "-"}, "a-b-c"),
    ("find-replace", {"text": "abc", "pattern": "b"}, "ac"),
    ("remove-characters", {"text": "a,b!c,", "pattern": ",!"}, "abc"),
    ("remove-characters", {"text": "abc"}, "abc"),
    ("split", {"text": "a,b,,c"}, ["a", "b", "", "c"]),
    ("split", {"text": "a--b", "delimiter": "--"}, ["a", "b"]),
    ("split", {"text": ""}, []),
    ("split-join", {"text": "a , b,c", "join_delimiter": " - "}, "a - b - c"),
    ("split-join", {"text": "a;b", "delimiter": ";"}, "a b"),
    ("substring-extraction", {"text": "x [y] [z]", "start_delimiter": "[", "end_delimiter": "]"}, "y"),
    ("substring-extraction", {"text": "x [y", "start_delimiter": "[", "end_delimiter": "]"}, ""),
    ("substring-extraction", {"text": "x", "start_delimiter": "[", "end_delimiter": "]"}, ""),
    ("collapse-expand-lines", {"text": "a \n b\r\nc\n"}, "a b c"),
    ("collapse-expand-lines", {"text": "a, b,c", "delimiter": ","}, "a\nb\nc"),
    ("as-byte-array", {"text": "aü"}, [97, 195, 188]),
    ("as-byte-array", {"text": "aü", "encoding": "ISO-8859-1"}, [97, 252]),
    ("from-base64", {"data": base64.b64encode("ü".encode()).decode()}, "ü"),
    ("from-base64", {"data": "/A==", "encoding": "latin-1"}, "ü"),
    ("from-base64", {"data": "/A==", "encoding": "auto"}, "ü"),
    ("from-base64", {"data": {"content": "YQ=="}}, "a"),
    ("from-base64", {"data": "data:text/plain;base64,YQ=="}, "a"),
    ("from-base64", {"data": ""}, ""),
    ("to-base64", {"data": "a"}, {"content": "YQ==", "filename": None, "mimeType": None}),
    (
        "to-base64",
        {"data": [97], "filename": "a.txt", "mimeType": "text/plain"},
        {"content": "YQ==", "filename": "a.txt", "mimeType": "text/plain"},
    ),
    (
        "to-base64",
        {"data": {"content": "YQ==", "filename": "x", "mimeType": "a/b"}, "mime_type": "c/d"},
        {"content": "YQ==", "filename": "x", "mimeType": "c/d"},
    ),
    (
        "regex-replace",
        {"text": "tel 1234567890", "pattern": r"(\d{3})(\d{3})(\d{4})", "replacement": "($1) $2-$3"},
        "tel (123) 456-7890",
    ),
    ("regex-replace", {"text": "a1b2", "pattern": r"\d", "replacement": "#", "global": False}, "a#b2"),
    ("regex-replace", {"text": "Aa", "pattern": "a", "replacement": "$0$$", "case_insensitive": True}, "A$a$"),
    ("regex-replace", {"text": "ab", "pattern": "(?P<x>a)", "replacement": "${x}$x-"}, "aa-b"),
    ("regex-replace", {"text": "ab", "pattern": "(a)|(b)", "replacement": "<$2>"}, "<><b>"),
    ("regex-replace", {"text": "ab", "pattern": "", "replacement": "-"}, "-a-b-"),
    ("regex-match", {"text": "Order #12 and #34", "pattern": r"#(\d+)", "capture_group": 1}, "12"),
    ("regex-match", {"text": "Order #12 and #34", "pattern": r"#(\d+)", "all_matches": True}, ["#12", "#34"]),
    ("regex-match", {"text": "x", "pattern": r"\d"}, None),
    ("regex-match", {"text": "", "pattern": r"\d", "all_matches": True}, []),
    ("regex-match", {"text": "b", "pattern": "(a)?b", "capture_group": "1"}, None),
    ("regex-test", {"text": "a@b.c", "pattern": r"^\S+@\S+$"}, True),
    ("regex-test", {"text": "", "pattern": "^$"}, True),
    ("regex-test", {"text": "ABC", "pattern": "abc"}, False),
    ("regex-split", {"text": "a,b;c\td", "pattern": r"[,;\t]+"}, ["a", "b", "c", "d"]),
    ("regex-split", {"text": "a,b,c", "pattern": "(,)", "limit": 2}, ["a", "b,c"]),
    ("regex-split", {"text": "a,b", "pattern": ",", "limit": 1}, ["a,b"]),
    ("regex-split", {"text": "", "pattern": ","}, []),
    ("pad-text", {"text": "7", "length": 3, "pad_char": "0", "direction": "left"}, "007"),
    ("pad-text", {"text": "ü", "length": 4, "pad_char": "ab", "direction": "both"}, "aüaa"),
    ("pad-text", {"text": "abc", "length": 2}, "abc"),
    ("truncate-text", {"text": PANGRAM, "max_length": 12, "suffix": "..."}, "The quick..."),
    ("truncate-text", {"text": PANGRAM, "max_length": 14, "suffix": "…", "word_boundary": True}, "The quick…"),
    ("truncate-text", {"text": PANGRAM, "max_length": 16, "suffix": "…", "word_boundary": True}, "The quick brown…"),
    ("truncate-text", {"text": "abcdefgh", "max_length": 3, "word_boundary": True}, "abc"),
    ("truncate-text", {"text": "abc", "max_length": 3}, "abc"),
    ("truncate-text", {"text": "abcdef", "max_length": 2, "suffix": "..."}, ".."),
    ("truncate-text", {"text": "abc", "max_length": 0}, ""),
    ("wrap-text", {"text": PANGRAM, "width": 15}, "The quick brown\nfox jumps over\nthe lazy dog"),
    ("wrap-text", {"text": "abcdefgh ij", "width": 3}, "abc\ndef\ngh\nij"),
    ("wrap-text", {"text": "a\n\nb c", "width": 3}, "a\n\nb c"),
    ("wrap-text", {"text": "a\nb", "width": 3, "preserve_newlines": False}, "a b"),
    ("extract-numbers", {"text": "$123.45, 5 pcs, v1.2.3, -7"}, [123.45, 5, 1.2, 3, 7]),
    ("extract-numbers", {"text": "-7, 10-20, a-1", "include_negative": True}, [-7, 10, 20, 1]),
    ("extract-numbers", {"text": "1.5", "include_decimals": False}, [1, 5]),
    ("extract-numbers", {"text": ""}, []),
    (
        "extract-emails",
        {"text": "Ann <ann@x.org>, bob+1@mail.example.co.uk; no@x"},
        ["ann@x.org", "bob+1@mail.example.co.uk"],
    ),
    (
        "extract-urls",
        {"text": "See https://a.b/c?d=e&f. (HTTP://x.y/z(1)) ftp://h/p, mailto:x"},
        ["https://a.b/c?d=e&f", "HTTP://x.y/z(1)", "ftp://h/p"],
    ),
    ("compare-text", {"text_a": "a", "text_b": "a"}, True),
    ("compare-text", {"text_a": "STRASSE", "text_b": "straße", "mode": "case-insensitive"}, True),
    ("compare-text", {"text_a": "abc", "text_b": "b", "mode": "contains"}, True),
    ("compare-text", {"text_a": "kitten", "text_b": "sitting", "mode": "levenshtein-distance"}, 3),
    ("compare-text", {"text_a": "", "text_b": "abc", "mode": "levenshtein-distance"}, 3),
    ("compare-text", {"text_a": "", "text_b": "", "mode": "jaro-similarity"}, 1.0),
    ("compare-text", {"text_a": "abc", "text_b": "xyz", "mode": "jaro-winkler-similarity"}, 0.0),
    ("compare-text", {"text_a": "night", "text_b": "NIGHT", "mode": "ngram-jaccard"}, 1.0),
    ("compare-text", {"text_a": "abcd", "text_b": "abce", "mode": "ngram-jaccard", "ngram_n": 2}, 0.5),
    ("compare-text", {"text_a": "abc", "text_b": "xabcx", "mode": "ngram-overlap"}, 1.0),
    ("compare-text", {"text_a": "a", "text_b": "xabcx", "mode": "ngram-overlap"}, 0.0),
    ("count-occurrences", {"text": PANGRAM, "pattern": "the"}, 1),
    ("count-occurrences", {"text": PANGRAM, "pattern": "the", "case_insensitive": True}, 2),
    ("count-occurrences", {"text": PANGRAM, "pattern": r"\bo\w+", "use_regex": True}, 1),
    ("count-occurrences", {"text": PANGRAM, "pattern": ""}, 0),
]


@pytest.mark.parametrize(("capability", "inputs", "expected"), CASES)
def test_each_capability(capability: str, inputs: dict[str, object], expected: JsonValue) -> None:
    found = perform("text", capability, inputs)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("one", "other", "jaro", "winkler"),
    [("MARTHA", "MARHTA", 0.9444, 0.9611), ("DIXON", "DICKSONX", 0.7667, 0.8133), ("DWAYNE", "DUANE", 0.8222, 0.84)],
)
def test_likeness_is_what_the_literature_says(one: str, other: str, jaro: float, winkler: float) -> None:
    inputs = {"text_a": one, "text_b": other}
    assert perform("text", "compare-text", {**inputs, "mode": "jaro-similarity"}) == pytest.approx(jaro, abs=1e-4)
    assert perform("text", "compare-text", {**inputs, "mode": "jaro-winkler-similarity"}) == pytest.approx(
        winkler, abs=1e-4
    )


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("slugify", {}, "STEP_REQUIRED_INPUT_MISSING"),
        ("slugify", {"text": None}, "STEP_REQUIRED_INPUT_NULL"),
        ("slugify", {"text": ["a"]}, "STEP_INVALID_INPUT"),
        ("case-conversion", {"text": "a", "format": "camel"}, "STEP_INVALID_INPUT"),
        ("find-replace", {"text": "a", "pattern": ""}, "STEP_INVALID_INPUT"),
        ("find-replace", {"text": "a" * 100_000, "pattern": "a", "replacement": "b" * 1_000}, "TEXT_TOO_LONG"),
        ("split-join", {"text": "," * 100_000, "join_delimiter": "b" * 1_000}, "TEXT_TOO_LONG"),
        ("split", {"text": "a", "delimiter": ""}, "STEP_INVALID_INPUT"),
        ("as-byte-array", {"text": "日", "encoding": "latin-1"}, "AGENT_WRONG_ENCODING"),
        ("as-byte-array", {"text": "a", "encoding": "rot13"}, "AGENT_UNKNOWN_ENCODING"),
        ("from-base64", {"data": "not base64!"}, "AGENT_INVALID_DATA"),
        ("from-base64", {"data": "/A=="}, "AGENT_WRONG_ENCODING"),
        ("to-base64", {"data": {"content": "§"}}, "AGENT_INVALID_DATA"),
        ("to-base64", {"data": [256]}, "STEP_INVALID_INPUT"),
        ("to-base64", {"data": None}, "STEP_REQUIRED_INPUT_NULL"),
        ("regex-test", {"text": "a", "pattern": "("}, "TEXT_INVALID_REGEX"),
        ("regex-test", {"text": "a", "pattern": "a" * 10_001}, "TEXT_INVALID_REGEX"),
        ("regex-replace", {"text": "a", "pattern": "a", "replacement": "$1"}, "TEXT_INVALID_REGEX"),
        ("regex-replace", {"text": "a", "pattern": "a", "replacement": "${x}"}, "TEXT_INVALID_REGEX"),
        ("regex-replace", {"text": "a" * 100_000, "pattern": "a", "replacement": "b" * 1_000}, "TEXT_TOO_LONG"),
        ("regex-match", {"text": "a", "pattern": "a", "capture_group": 1}, "TEXT_INVALID_REGEX"),
        ("pad-text", {"text": "a", "length": 1_000_001}, "STEP_INVALID_INPUT"),
        ("wrap-text", {"text": "a", "width": 0}, "STEP_INVALID_INPUT"),
        ("compare-text", {"text_a": "a", "text_b": "b", "mode": "ngram-jaccard", "ngram_n": 9}, "STEP_INVALID_INPUT"),
        (
            "compare-text",
            {"text_a": "a" * 10_000, "text_b": "b" * 10_000, "mode": "levenshtein-distance"},
            "TEXT_TOO_LONG",
        ),
    ],
)
def test_what_each_capability_refuses(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("text", capability, inputs).code == code


@pytest.mark.parametrize(
    ("capability", "extra"),
    [
        ("regex-test", {}),
        ("regex-match", {"all_matches": True}),
        ("regex-replace", {}),
        ("regex-split", {}),
        ("count-occurrences", {"use_regex": True}),
    ],
)
def test_a_pattern_that_would_take_for_ever_is_ended(
    capability: str, extra: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.agents.text.searching.SECONDS", 0.1)
    inputs = {"text": "a" * 60 + "!", "pattern": r"^(a|a|aa)*$", **extra}
    assert refused("text", capability, inputs).code == "TEXT_REGEX_TIMEOUT"


@pytest.mark.parametrize(
    "pattern",
    [
        "a{99999999}",
        "a{99999999}?",
        "a{9999999999999999999999}",
        "(a{9999}){9999}",
        "(?:[ab]{999}){999}",
        "((a{99}){99}){99}",
        "(?:(?:a*b){999}){999}",
        "(?x)(a{999} # [\n) # ]\n{999}",
        "[(](a{999}[)]){999}",
        "(?:a{999})+{999}",
        "(?:a){99}{99}{99}",
        "\\){99999}",
    ],
)
def test_a_pattern_that_would_fill_the_memory_is_refused(pattern: str) -> None:
    assert refused("text", "regex-test", {"text": "a", "pattern": pattern}).code == "TEXT_INVALID_REGEX"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "123e4567-e89b-12d3-a456-426614174000"),
        (r"(\d{1,3}\.){3}\d{1,3}", "192.168.0.1"),
        (
            r"(([0-9a-f]{1,4}:){7,7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,7}:|([0-9a-f]{1,4}:){1,6}(:[0-9a-f]{1,4}){1,2})",
            "fe80::1",
        ),
        (r"\p{Lu}{2}\d{2}[\dA-Z]{11,30}", "DE89370400440532013000"),
        (r"^.{1000,}$", "x" * 1_000),
    ],
)
def test_patterns_that_people_write_are_not(pattern: str, text: str) -> None:
    assert perform("text", "regex-test", {"text": text, "pattern": pattern}) is True


@pytest.mark.parametrize("text", ["a" * 1_000_000, "a@" * 500_000, "a." * 500_000 + "@b", "https://" * 125_000])
def test_our_own_patterns_are_linear(text: str) -> None:
    for capability in ("extract-emails", "extract-urls", "extract-numbers"):
        perform("text", capability, {"text": text})


@given(st.binary(max_size=100))
def test_base64_and_back(content: bytes) -> None:
    file = perform("text", "to-base64", {"data": list(content)})
    assert perform("text", "from-base64", {"data": file, "encoding": "latin-1"}) == content.decode("latin-1")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.integers(1, 20), st.booleans())
def test_no_line_is_longer_than_asked_for_and_no_letter_is_lost(text: str, width: int, keep: bool) -> None:
    found = str(perform("text", "wrap-text", {"text": text, "width": width, "preserve_newlines": keep}))
    assert all(len(line) <= width for line in found.split("\n"))
    assert "".join(found.split()) == "".join(text.split())


@given(st.text(max_size=30), st.integers(0, 40), st.text(max_size=5), st.booleans())
def test_no_text_is_longer_than_asked_for(text: str, length: int, suffix: str, at_words: bool) -> None:
    inputs = {"text": text, "max_length": length, "suffix": suffix, "word_boundary": at_words}
    found = str(perform("text", "truncate-text", inputs))
    assert len(found) <= length
    assert found == text or len(text) > length


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_an_edit_distance_is_symmetric_and_bounded(one: str, other: str) -> None:
    there = perform("text", "compare-text", {"text_a": one, "text_b": other, "mode": "levenshtein-distance"})
    back = perform("text", "compare-text", {"text_a": other, "text_b": one, "mode": "levenshtein-distance"})
    assert there == back
    assert isinstance(there, int)
    assert abs(len(one) - len(other)) <= there <= max(len(one), len(other))
    assert (there == 0) == (one == other)
