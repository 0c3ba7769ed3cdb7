"""The agent `utils`: its capabilities, over `arithmetic`, `countries` and `datetime`.

Clock and chance come in when the agent is made, so that tests can bring their own.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue

from ..agent import agent, capability
from ..datetime.forms import formatted
from ..datetime.reading import INVALID_DATE, date_of
from ..datetime.zones import iso
from .arithmetic import (
    DIVISION_BY_ZERO,
    INVALID_EXPRESSION,
    INVALID_VARIABLE,
    NOT_A_NUMBER,
    UNKNOWN_VARIABLE,
    calculated,
    rounded,
)
from .countries import COUNTRY_NOT_FOUND, code_of
from .models import (
    Calculate,
    CountryNameToIsoCode,
    DelayInMs,
    FormatDateFromIso,
    IsoToUnixTimestamp,
    Nothing,
    RandomArray,
    ReturnInput,
)

pure = partial(capability, idempotent=True, inline=True)
quick = partial(capability, inline=True)


@agent("utils", display_name="Utils")
class Utils:
    """Random values, arithmetic, the clock, country codes, and capabilities that do nothing."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: random.Random | None = None,
    ) -> None:
        self._now = now
        self._chance = chance or random.SystemRandom()

    @quick("random-double")
    def random_double(self, inputs: Nothing) -> float:
        """A random number from 0 up to, but without, 1."""
        return self._chance.random()

    @quick("random-array")
    def random_array(self, inputs: RandomArray) -> list[int]:
        """Random whole numbers from 0 to `size`, as many as `size` says."""
        return [self._chance.randint(0, inputs.size) for _ in range(inputs.size)]

    @pure("return-input")
    def return_input(self, inputs: ReturnInput) -> JsonValue:
        """The value that it is given."""
        return inputs.value

    @pure("do-nothing")
    def do_nothing(self, inputs: Nothing) -> None:
        """Nothing. Gives null."""

    @capability("delay-in-ms", display_name="Delay", idempotent=True)
    async def delay_in_ms(self, inputs: DelayInMs) -> int:
        """Wait in the worker, and give the milliseconds. For anything longer than moments use a Delay step."""
        await asyncio.sleep(inputs.delay_value / 1_000)
        return inputs.delay_value

    @pure(
        "calculate",
        errors=(INVALID_EXPRESSION, UNKNOWN_VARIABLE, INVALID_VARIABLE, DIVISION_BY_ZERO, NOT_A_NUMBER),
    )
    def calculate(self, inputs: Calculate) -> int | float:
        """The value of an arithmetic expression. What is whole is given as a whole number."""
        value = calculated(inputs.expression, inputs.variables)
        return rounded(value, inputs.decimal_places or 0) if inputs.enable_rounding else value

    @quick("get-current-unix-timestamp", display_name="Current Unix timestamp")
    def get_current_unix_timestamp(self, inputs: Nothing) -> int:
        """Seconds since 1970."""
        return int(self._now().timestamp())

    @quick("get-current-iso-datetime", display_name="Current ISO date and time")
    def get_current_iso_datetime(self, inputs: Nothing) -> str:
        """The time in UTC, in ISO 8601."""
        return iso(self._now())

    @pure("format-date-from-iso", display_name="Format date", errors=(INVALID_DATE,))
    def format_date_from_iso(self, inputs: FormatDateFromIso) -> str:
        """A date in another form. An offset that it has is kept; without one it is UTC."""
        return formatted(date_of(inputs.iso_date, None), inputs.target_format)

    @pure("iso-to-unix-timestamp", display_name="ISO to Unix timestamp", errors=(INVALID_DATE,))
    def iso_to_unix_timestamp(self, inputs: IsoToUnixTimestamp) -> int:
        """A date's seconds since 1970. Without an offset it is UTC."""
        return int(date_of(inputs.iso_date, None).timestamp() // 1)

    @pure("country-name-to-iso-code", display_name="Country to ISO code", errors=(COUNTRY_NOT_FOUND,))
    def country_name_to_iso_code(self, inputs: CountryNameToIsoCode) -> str:
        """A country's ISO 3166 code by its English name. One that is not known is an error with the nearest ones."""
        return code_of(inputs.country_name, letters=2 if inputs.code_type == "alpha2" else 3)
