"""KeySet: persistent, complete or not."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runtara.engine.lifecycle import KeySet, key_hash


@given(st.lists(st.integers()))
def test_it_holds_exactly_what_was_added(items: list[int]) -> None:
    keys = KeySet.of()
    for item in items:
        keys = keys.add(item)
    assert set(keys) == set(items)
    assert all(item in keys for item in items)


@given(st.lists(st.integers()), st.integers())
def test_adding_leaves_the_old_set_as_it_was(items: list[int], more: int) -> None:
    old = KeySet.of(items)
    new = old.add(more)
    assert set(old) == set(items)
    assert set(new) == {*items, more}


def test_only_the_newest_set_grows_in_place() -> None:
    old = KeySet.of([1])
    first, second = old.add(2), old.add(3)
    assert first._table is old._table
    assert second._table is not old._table
    assert (set(old), set(first), set(second)) == ({1}, {1, 2}, {1, 3})
    assert 2 not in second
    assert 3 not in first
    assert set(first.add(3)) == {1, 2, 3}


def test_what_comes_from_json_is_empty_and_not_complete() -> None:
    keys = KeySet.of([1, 2])
    text = msgspec.json.encode(keys)
    assert text == b"{}"
    read = msgspec.json.decode(text, type=KeySet)
    assert not read.complete
    assert len(read) == 0
    assert read.add(1) is read


def test_sets_are_equal_by_their_members() -> None:
    assert KeySet.of([1, 2]) == KeySet.of([2]).add(1)
    assert KeySet.of() != KeySet()
    assert hash(KeySet.of([1, 2])) == hash(KeySet.of([2, 1]))


def test_a_hash_has_64_bits() -> None:
    assert -(2**63) <= key_hash("order-17") < 2**63
