"""A country's ISO 3166 code by its name, as `pycountry` has them.

Invariants: a name is never guessed at; one that is not known is an error with the nearest ones.
"""

import unicodedata
from collections import Counter
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

import pycountry

from ..errors import AgentError

COUNTRY_NOT_FOUND: Final = "UTILS_COUNTRY_NOT_FOUND"
_ALSO: Final = {  # what people write, and ISO does not
    "america": "US",
    "bosnia": "BA",
    "britain": "GB",
    "burma": "MM",
    "cape verde": "CV",
    "czech republic": "CZ",
    "democratic republic of the congo": "CD",
    "drc": "CD",
    "east timor": "TL",
    "england": "GB",
    "great britain": "GB",
    "holland": "NL",
    "ivory coast": "CI",
    "kosovo": "XK",
    "macedonia": "MK",
    "palestine": "PS",
    "prc": "CN",
    "republic of the congo": "CG",
    "russia": "RU",
    "scotland": "GB",
    "south korea": "KR",
    "north korea": "KP",
    "swaziland": "SZ",
    "the bahamas": "BS",
    "the gambia": "GM",
    "the netherlands": "NL",
    "turkey": "TR",
    "uae": "AE",
    "uk": "GB",
    "united states of america": "US",
    "vatican": "VA",
    "vatican city": "VA",
    "wales": "GB",
}
_KOSOVO: Final = {"XK": "XKX"}  # in use everywhere, and assigned by nobody
_NEAREST: Final = 3


def code_of(name: str, *, letters: int) -> str:
    """The code of two or three letters. Raises `AgentError` UTILS_COUNTRY_NOT_FOUND."""
    wanted = _plain(name)
    alpha2 = _names().get(wanted)
    if alpha2 is None:
        close = get_close_matches(wanted, _names(), n=_NEAREST)
        hint = f"; did you mean {', '.join(map(repr, close))}?" if close else "; write its English name"
        raise AgentError(COUNTRY_NOT_FOUND, f"there is no country {name!r}{hint}", attributes={"nearest": close})
    return alpha2 if letters == 2 else _three_letters()[alpha2]


@lru_cache(maxsize=1)
def _three_letters() -> dict[str, str]:
    return {country.alpha_2: country.alpha_3 for country in pycountry.countries} | _KOSOVO


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Plain names and codes → two letters."""
    found: dict[str, str] = {}
    heads: list[tuple[str, str]] = []
    for country in pycountry.countries:
        for key in ("name", "common_name", "official_name", "alpha_2", "alpha_3"):
            text = getattr(country, key, None)
            if text is not None:
                found[_plain(text)] = country.alpha_2
        heads.append((_plain(country.name.partition(",")[0]), country.alpha_2))
    counts = Counter(head for head, _ in heads)
    unique = {head: code for head, code in heads if counts[head] == 1}  # two Koreas, two Congos: say which
    return {**unique, **found, **_ALSO}


def _plain(name: str) -> str:
    """Small letters without accents, single spaces; dots and brackets do not count."""
    text = unicodedata.normalize("NFKD", name.casefold().replace("&", " and "))
    letters = (char for char in text if not unicodedata.combining(char))
    return " ".join("".join(char if char.isalnum() else "" if char in ".'’" else " " for char in letters).split())
