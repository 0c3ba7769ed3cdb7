"""Paths: one tokenizer for what the validator checks and the run time reads."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.dsl.paths import MAX_LENGTH, Path, PathError, parse_destination, parse_path


@pytest.mark.parametrize(
    ("text", "root", "parts"),
    [
        ("data", "data", ()),
        ("data.customer.id", "data", ("customer", "id")),
        ("steps.fetch-orders.outputs.items[0]", "steps", ("fetch-orders", "outputs", "items", 0)),
        ("data[-1].name", "data", (-1, "name")),
        ("data.items.0.name", "data", ("items", "0", "name")),
        ('steps["a.b"].outputs', "steps", ("a.b", "outputs")),
        ("data['it\\'s']", "data", ("it's",)),
        ('data["say \\"hi\\" \\\\ \\n"]', "data", ('say "hi" \\ \\n',)),
        ('data["]"]["["]', "data", ("]", "[")),
        ('data[""]', "data", ("",)),
        ("data.first name", "data", ("first name",)),
        ("data.größe.名前", "data", ("größe", "名前")),
        ("data[0][1]", "data", (0, 1)),
    ],
)
def test_a_path_is_its_root_and_its_parts(text: str, root: str, parts: tuple[str | int, ...]) -> None:
    assert parse_path(text) == Path(root=root, parts=parts)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "a name is missing"),
        (".data", 0, "a name is missing"),
        ("data.", 5, "a name is missing"),
        ("data..x", 5, "a name is missing"),
        ("data[0", 6, "a ] is missing"),
        ("data[", 5, "brackets hold an index"),
        ("data[]", 5, "brackets hold an index"),
        ("data[name]", 5, '["name"]'),
        ("data[1.5]", 5, "brackets hold an index"),
        ("data[²]", 5, "brackets hold an index"),
        ("data[--1]", 5, "brackets hold an index"),
        ("data[9999999999]", 5, "brackets hold an index"),
        ('data["x]', 5, "does not end"),
        ('data["x"', 8, "a ] is missing"),
        ('data["x"y]', 8, "a ] is missing"),
        ("data]x", 4, "only allowed in brackets"),
        ('da"ta', 2, "only allowed in brackets"),
        ("data[0]x", 7, "expected . or ["),
        (" data", 0, "spaces at its ends"),
        ("data. x", 5, "spaces at its ends"),
        ("data.a\nb", 6, "control characters"),
        ("[0]", 0, "a name is missing"),
        ("x" * (MAX_LENGTH + 1), MAX_LENGTH, "at most"),
    ],
)
def test_what_is_no_path_is_refused_with_its_place(text: str, position: int, reason: str) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(text)
    assert caught.value.position == position
    assert reason in caught.value.reason


_NAMES = st.text(st.characters(exclude_characters=".[]\"'"), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and name.isprintable()
)
_PARTS = st.lists(st.one_of(st.text(max_size=8), st.integers(-999, 999)), max_size=6)


@given(_NAMES, _PARTS)
def test_a_written_path_reads_back(root: str, parts: list[str | int]) -> None:
    path = Path(root=root, parts=tuple(parts))
    assert parse_path(str(path)) == path


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_a_path_error(text: str) -> None:
    with suppress(PathError):
        path = parse_path(text)
        assert parse_path(str(path)) == path


def test_a_destination_is_keys_without_indices() -> None:
    assert parse_destination('body.customer["e.mail"]') == ("body", "customer", "e.mail")
    with pytest.raises(PathError, match="composite"):
        parse_destination("items[0].id")
