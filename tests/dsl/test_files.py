"""From a text to a document: nothing is passed over in silence."""

from pathlib import Path

import pytest

from runtara.dsl.files import Siblings, parse_text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON: Expecting property name"),
        ("", "in line 1, column 1"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1,}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5_000 + "}", "not JSON"),
    ],
)
def test_what_is_no_json_is_a_problem(text: str, says: str) -> None:
    document, (problem,) = parse_text(text)
    assert (document, problem.code) == (None, "E200")
    assert says in problem.message


def test_a_name_that_is_there_twice_is_a_problem() -> None:
    document, problems = parse_text('{"steps": {"a": 1, "b": 2, "a": 3}, "x": {"y": 1, "y": 1}}')
    assert document == {"steps": {"a": 3, "b": 2}, "x": {"y": 1}}
    assert [problem.code for problem in problems] == ["E210", "E210"]
    assert "'a' is there twice" in problems[0].message


def test_a_byte_order_mark_is_no_part_of_the_document() -> None:
    assert parse_text('\ufeff{"a": 1}') == ({"a": 1}, ())


def test_the_documents_beside_a_file_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "child.json").write_text('{"steps": {}}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path.parent / "outside.json").write_text("{}")
    siblings = Siblings(tmp_path)
    assert list(siblings) == ["broken", "child"]
    assert siblings["child"] == {"steps": {}}
    assert siblings["broken"] is None
    assert "../outside" not in siblings
    assert "nobody" not in siblings
