"""The agent `utils`: random values, arithmetic, the clock, country codes, and capabilities that do nothing."""

from .agent import Utils
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

__all__ = [
    "Calculate",
    "CountryNameToIsoCode",
    "DelayInMs",
    "FormatDateFromIso",
    "IsoToUnixTimestamp",
    "Nothing",
    "RandomArray",
    "ReturnInput",
    "Utils",
]
