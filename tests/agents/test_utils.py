"""The agent `utils`, capability by capability."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from runtara.agents import AgentError
from runtara.agents.utils import Nothing, RandomArray, Utils
from runtara.agents.utils.arithmetic import calculated, rounded
from tests.support.perform import perform, refused

CASES: list[tuple[str, dict[str, object], JsonValue]] = [
    ("return-input", {"value": {"a": [1, None]}}, {"a": [1, None]}),
    ("return-input", {"value": None}, None),
    ("do-nothing", {}, None),
    ("delay-in-ms", {"delay_value": "1"}, 1),
    ("random-array", {"size": 0}, []),
    ("calculate", {"expression": "(x + y) * 2", "variables": {"x": 1, "y": "2.5"}}, 7),
    ("calculate", {"expression": " 2 + 3 * 4 - -1 "}, 15),
    ("calculate", {"expression": "7 / 2"}, 3.5),
    ("calculate", {"expression": "-7 % 3"}, -1),
    ("calculate", {"expression": "7.5 % 2"}, 1.5),
    ("calculate", {"expression": "7 // 2 + 2 ** 10"}, 1027),
    ("calculate", {"expression": "max(1, 2, min(3, 4)) + abs(-1) + sqrt(9) + floor(1.9) + ceil(1.1)"}, 10),
    ("calculate", {"expression": "round(2.345, 2)"}, 2.35),
    ("calculate", {"expression": "0.1 + 0.2"}, 0.1 + 0.2),
    ("calculate", {"expression": "0.1 + 0.2", "enable_rounding": True, "decimal_places": 2}, 0.3),
    ("calculate", {"expression": "2.5", "enable_rounding": True}, 3),
    ("calculate", {"expression": "-2.5", "enable_rounding": True, "decimal_places": 0}, -3),
    ("calculate", {"expression": "1.005", "enable_rounding": True, "decimal_places": "2"}, 1.01),
    ("calculate", {"expression": "1.005", "decimal_places": 2}, 1.005),
    ("calculate", {"expression": "a * b", "variables": {"a": 2**60, "b": 2**60}}, 2**120),
    (
        "format-date-from-iso",
        {"iso_date": "2024-01-15T10:30:00Z", "target_format": "dd.MM.yyyy HH:mm"},
        "15.01.2024 10:30",
    ),
    ("format-date-from-iso", {"iso_date": "2024-01-15T10:30:00+02:00", "target_format": "HH:mm ZZZ"}, "10:30 +02:00"),
    ("iso-to-unix-timestamp", {"iso_date": "2024-01-15T14:30:00Z"}, 1705329000),
    ("iso-to-unix-timestamp", {"iso_date": "2024-01-15T14:30:00"}, 1705329000),
    ("iso-to-unix-timestamp", {"iso_date": "1969-12-31T23:59:59.5Z"}, -1),
    ("country-name-to-iso-code", {"country_name": "Germany"}, "DE"),
    ("country-name-to-iso-code", {"country_name": " united   states OF america "}, "US"),
    ("country-name-to-iso-code", {"country_name": "Côte d'Ivoire", "code_type": "alpha3"}, "CIV"),
    ("country-name-to-iso-code", {"country_name": "Ivory Coast"}, "CI"),
    ("country-name-to-iso-code", {"country_name": "Russia"}, "RU"),
    ("country-name-to-iso-code", {"country_name": "South Korea"}, "KR"),
    ("country-name-to-iso-code", {"country_name": "Bolivia"}, "BO"),
    ("country-name-to-iso-code", {"country_name": "Iran", "code_type": "alpha3"}, "IRN"),
    ("country-name-to-iso-code", {"country_name": "Vietnam"}, "VN"),
    ("country-name-to-iso-code", {"country_name": "Trinidad & Tobago"}, "TT"),
    ("country-name-to-iso-code", {"country_name": "U.K.", "code_type": "alpha3"}, "GBR"),
    ("country-name-to-iso-code", {"country_name": "deu"}, "DE"),
    ("country-name-to-iso-code", {"country_name": "Kosovo", "code_type": "alpha3"}, "XKX"),
]


@pytest.mark.parametrize(("capability", "inputs", "expected"), CASES)
def test_each_capability(capability: str, inputs: dict[str, object], expected: JsonValue) -> None:
    found = perform("utils", capability, inputs)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("random-array", {"size": -1}, "STEP_INVALID_INPUT"),
        ("random-array", {"size": 100_001}, "STEP_INVALID_INPUT"),
        ("random-array", {}, "STEP_REQUIRED_INPUT_MISSING"),
        ("delay-in-ms", {"delay_value": 3_600_001}, "STEP_INVALID_INPUT"),
        ("delay-in-ms", {"delay_value": -1}, "STEP_INVALID_INPUT"),
        ("calculate", {"expression": ""}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "1 +"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "1; 2"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "x"}, "UTILS_UNKNOWN_VARIABLE"),
        ("calculate", {"expression": "x", "variables": {"x": "many"}}, "UTILS_INVALID_VARIABLE"),
        ("calculate", {"expression": "x", "variables": {"x": None}}, "UTILS_INVALID_VARIABLE"),
        ("calculate", {"expression": "x", "variables": {"x": "nan"}}, "UTILS_INVALID_VARIABLE"),
        ("calculate", {"expression": "x", "variables": {"x": "9" * 5_000}}, "UTILS_INVALID_VARIABLE"),
        ("calculate", {"expression": "x", "variables": {"x": []}}, "STEP_INVALID_INPUT"),
        ("calculate", {"expression": "1 / 0"}, "UTILS_DIVISION_BY_ZERO"),
        ("calculate", {"expression": "1 // 0.0"}, "UTILS_DIVISION_BY_ZERO"),
        ("calculate", {"expression": "1 % 0"}, "UTILS_DIVISION_BY_ZERO"),
        ("calculate", {"expression": "9 ** 9 ** 9"}, "UTILS_NOT_A_NUMBER"),
        ("calculate", {"expression": "10.0 ** 400"}, "UTILS_NOT_A_NUMBER"),
        ("calculate", {"expression": "1e308 * 10"}, "UTILS_NOT_A_NUMBER"),
        ("calculate", {"expression": "*".join(["9" * 300] * 5)}, "UTILS_NOT_A_NUMBER"),
        ("calculate", {"expression": "sqrt(-1)"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "(-8) ** 0.5"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "'a' * 9"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "'a'"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "True + 1"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "[1][0]"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "1 if 1 else 2"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "x.real", "variables": {"x": 1}}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "().__class__"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "__import__('os').system('true')"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "open('x')"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "(lambda: 1)()"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "max(x for x in [1])"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "max()"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "(" * 500 + "1" + ")" * 500}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "-" * 1_999 + "1"}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "1" * 2_001}, "UTILS_INVALID_EXPRESSION"),
        ("calculate", {"expression": "1", "decimal_places": 16}, "STEP_INVALID_INPUT"),
        ("format-date-from-iso", {"iso_date": "yesterday", "target_format": "yyyy"}, "DATETIME_INVALID_DATE"),
        ("iso-to-unix-timestamp", {"iso_date": ""}, "DATETIME_INVALID_DATE"),
        ("country-name-to-iso-code", {"country_name": "Atlantis"}, "UTILS_COUNTRY_NOT_FOUND"),
        ("country-name-to-iso-code", {"country_name": "Korea"}, "UTILS_COUNTRY_NOT_FOUND"),
        ("country-name-to-iso-code", {"country_name": ""}, "UTILS_COUNTRY_NOT_FOUND"),
        ("country-name-to-iso-code", {"country_name": "Germany", "code_type": "numeric"}, "STEP_INVALID_INPUT"),
    ],
)
def test_what_each_capability_refuses(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("utils", capability, inputs).code == code


def test_a_country_that_is_nearly_right_is_named_and_not_guessed_at() -> None:
    error = refused("utils", "country-name-to-iso-code", {"country_name": "Germanny"})
    assert "'germany'" in str(error)


def test_chance_and_clock_may_be_brought_along() -> None:
    here = Utils(now=lambda: datetime(2024, 1, 15, 14, 30, 0, 250_000, tzinfo=UTC), chance=random.Random(7))
    again = Utils(chance=random.Random(7))
    assert here.get_current_iso_datetime(Nothing()) == "2024-01-15T14:30:00.250Z"
    assert here.get_current_unix_timestamp(Nothing()) == 1705329000
    assert 0 <= here.random_double(Nothing()) == again.random_double(Nothing()) < 1
    numbers = here.random_array(RandomArray(size=50))
    assert numbers == again.random_array(RandomArray(size=50))
    assert len(numbers) == 50
    assert all(0 <= number <= 50 for number in numbers)


def test_the_clock_is_that_of_the_machine() -> None:
    before = datetime.now(UTC).timestamp()
    stamp = perform("utils", "get-current-unix-timestamp", {})
    text = perform("utils", "get-current-iso-datetime", {})
    after = datetime.now(UTC).timestamp()
    assert int(before) <= int(str(stamp)) <= after
    assert before - 0.001 <= datetime.fromisoformat(str(text)).timestamp() <= after


@given(st.text(st.sampled_from("0123456789.+-*/%() e_xyabsmin,"), max_size=30))
def test_no_expression_does_anything_but_give_a_number_or_be_refused(expression: str) -> None:
    try:
        found = calculated(expression, {"x": 2, "y": 0.5})
    except AgentError as error:
        assert error.code.startswith("UTILS_")  # noqa: PT017
    else:
        assert type(found) in (int, float)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**200), 2**200), st.integers(0, 15))
def test_rounding_is_near_and_never_fails(value: float, places: int) -> None:
    assert rounded(value, places) == pytest.approx(value, abs=10**-places)
