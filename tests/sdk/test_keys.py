"""Keys come from what is called, never from when."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.protocol.errors import DuplicateKey, InvalidKey, KeyMismatch, KeyNeeded
from runtara.sdk.keys import Keys
from runtara.sdk.signature import StepSpec


async def charge(order_id: str, amount: int = 1, **extra: int) -> str:
    return order_id


CHARGE = StepSpec(charge)


def key(keys: Keys, *args: object, prefix: str = "", spec: StepSpec = CHARGE, **kwargs: object) -> str:
    return keys.of_step(prefix, spec, args, kwargs)[0]


def test_an_automatic_key_is_the_name_and_eight_digits_of_the_arguments() -> None:
    name, _, digits = key(Keys(None), "a").partition("~")
    assert name == "charge"
    assert len(digits) == 8
    assert int(digits, 16) >= 0


def test_repeats_of_the_very_same_call_are_numbered() -> None:
    keys = Keys(None)
    first = key(keys, "a")
    assert [key(keys, "a"), key(keys, "b").partition("~")[0], key(keys, "a")] == [f"{first}#2", "charge", f"{first}#3"]


def test_arguments_count_the_same_by_name_and_by_position() -> None:
    assert key(Keys(None), "a", 2) == key(Keys(None), "a", amount=2) == key(Keys(None), amount=2, order_id="a")


def test_a_named_argument_is_not_mistaken_for_a_positional_one() -> None:
    assert key(Keys(None), "a", amount=1, tip=2) != key(Keys(None), "a", {"tip": 2})
    assert key(Keys(None), order_id="a", tip=2) != key(Keys(None), ["a"], {"tip": 2})


def test_a_set_gives_the_same_key_whatever_its_order() -> None:
    assert key(Keys(None), {"a", "b", "c"}) == key(Keys(None), {"c", "b", "a"})


@pytest.mark.parametrize("bad", [object(), float("nan"), {"x": float("inf")}, [lambda: 1], 2**70])
def test_an_argument_without_a_stable_text_needs_a_key_and_is_named(bad: Any) -> None:
    with pytest.raises(KeyNeeded, match="'amount' of charge"):
        key(Keys(None), "a", bad)
    with pytest.raises(KeyNeeded, match="'tip' of charge"):
        key(Keys(None), "a", tip=bad)


@dataclasses.dataclass
class Order:
    id: str
    lines: list[int]


async def ship(order: Order, depot: str = "north") -> None: ...


def test_a_template_names_arguments_and_their_parts() -> None:
    spec = StepSpec(ship, key="{order.id}-{order.lines[1]:03}@{depot}")
    assert key(Keys(None), Order("o/1", [7, 8]), spec=spec) == "ship/o~11-008@north"


def test_a_template_that_names_no_parameter_is_refused_at_decoration() -> None:
    with pytest.raises(TypeError, match="names 'oder'"):
        StepSpec(ship, key="{oder.id}")


def test_the_same_explicit_key_twice_is_refused() -> None:
    keys = Keys(None)
    keys.explicit("", "a")
    keys.explicit("x/", "a")
    with pytest.raises(DuplicateKey, match="'a'"):
        keys.explicit("", "a")


def test_a_released_key_can_be_used_again() -> None:
    keys = Keys(None)
    keys.explicit("", "a")
    keys.release("a")
    assert keys.explicit("", "a") == "a"
    first, second = key(keys, "x"), key(keys, "x")
    keys.release(first)
    assert [key(keys, "x"), key(keys, "x")] == [first, second.replace("#2", "#3")]


@pytest.mark.parametrize("bad", ["", "a\nb", "\x00", "x" * 1025, "~undo/x"])
def test_an_illegal_or_reserved_key_is_refused(bad: str) -> None:
    with pytest.raises(InvalidKey):
        Keys(None).explicit("", bad)


def test_two_functions_of_one_name_do_not_share_results() -> None:
    async def ship(order: str) -> None: ...

    keys = Keys(None)
    key(keys, "a", spec=StepSpec(ship))
    with pytest.raises(KeyMismatch, match="'ship'"):
        key(keys, "a", spec=StepSpec(globals()["ship"]))


FIRST, SECOND = "00000000" + "a" * 16, "00000000" + "b" * 16


@given(st.permutations([FIRST, SECOND]), st.permutations([FIRST, SECOND]), st.sets(st.integers(0, 1)))
def test_calls_whose_short_fingerprints_collide_are_told_apart(
    before: list[str], after: list[str], recorded: set[int]
) -> None:
    """Whatever an earlier attempt recorded, in whatever order the next one asks: nobody gets another's record."""
    keys = Keys(None)
    given = {}
    for index, fingerprint in enumerate(before):
        name, digest = keys.automatic("", "f", fingerprint)
        if index in recorded:
            given[name] = digest
    resumed = Keys(given.get if given else None)
    for fingerprint in after:
        name, digest = resumed.automatic("", "f", fingerprint)
        assert given.get(name, digest) == digest
        recorded_before = fingerprint[8:] in given.values()
        assert (name in given) == recorded_before
