"""What the capabilities of `utils` take."""

from typing import Final, Literal

from pydantic import Field, JsonValue

from ..models import Inputs

RANDOM_ITEMS: Final = 100_000  # of random-array: about a megabyte of JSON
DELAY_MS: Final = 3_600_000  # of delay-in-ms, which keeps its worker busy; a Delay step does not, and can wait longer
PLACES: Final = 15  # after the point: a float has no more


class Nothing(Inputs):
    """No inputs."""


class RandomArray(Inputs):
    """Inputs of `random-array`."""

    size: int = Field(
        ge=0, le=RANDOM_ITEMS, description="How many numbers, and the largest that may come.", examples=[5]
    )


class ReturnInput(Inputs):
    """Inputs of `return-input`."""

    value: JsonValue = Field(default=None, description="The value to return.")


class DelayInMs(Inputs):
    """Inputs of `delay-in-ms`."""

    delay_value: int = Field(ge=0, le=DELAY_MS, description="Milliseconds to wait.", examples=[1000])


class Calculate(Inputs):
    """Inputs of `calculate`."""

    expression: str = Field(
        description="Numbers, names, + - * / // % ** and brackets; abs, ceil, floor, max, min, round, sqrt.",
        examples=["(price + shipping) * 1.2"],
    )
    variables: dict[str, int | float | str | None] = Field(
        default={},
        description="The numbers that its names stand for; a text must be one.",
        examples=[{"price": 10, "shipping": "4.50"}],
    )
    enable_rounding: bool = Field(default=False, description="Whether the result is rounded, halves away from zero.")
    decimal_places: int | None = Field(default=None, ge=0, le=PLACES, description="Places after the point; none: 0.")


class FormatDateFromIso(Inputs):
    """Inputs of `format-date-from-iso`."""

    iso_date: str = Field(description="A date in ISO 8601.", examples=["2024-01-15T10:30:00Z"])
    target_format: str = Field(
        description="Its form, in the tokens of `datetime format-date`.", min_length=1, examples=["yyyy-MM-dd HH:mm:ss"]
    )


class IsoToUnixTimestamp(Inputs):
    """Inputs of `iso-to-unix-timestamp`."""

    iso_date: str = Field(description="A date in ISO 8601.", examples=["2024-01-15T10:30:00Z"])


class CountryNameToIsoCode(Inputs):
    """Inputs of `country-name-to-iso-code`."""

    country_name: str = Field(description="A country's name in English, or one of its codes.", examples=["Germany"])
    code_type: Literal["alpha2", "alpha3"] = Field(default="alpha2", description="Two letters or three.")
