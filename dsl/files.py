"""From a text to a document: JSON, strictly. What JSON readers pass over in silence is a problem here.

Invariant: a name that an object has twice is told, as one of the two would be lost.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

from .problems import Problem, problem

SUFFIX: Final = ".json"


def parse_text(text: str) -> tuple[object, tuple[Problem, ...]]:
    """The document, and what is wrong with the text. With a problem the document is None or lacks something."""
    doubled: list[Problem] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = dict.fromkeys(name for name in names if names.count(name) > 1)
            beside = ", ".join(map(repr, list(found)[:4]))
            doubled.extend(
                problem("E210", f"{name!r} is there twice in one object (of {beside} …); only one can count")
                for name in twice
            )
        return found

    try:
        document = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=collect, parse_constant=_no_number)
    except json.JSONDecodeError as exc:
        return None, (problem("E200", f"not JSON: {exc.msg}, in line {exc.lineno}, column {exc.colno}"),)
    except ValueError as exc:
        return None, (problem("E200", f"not JSON: {exc}"),)
    except RecursionError:
        return None, (problem("E200", "nested too deeply"),)
    return document, tuple(doubled)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


class Siblings(Mapping[str, object]):
    """The documents of a folder by workflow id, which is the file's stem; each is read when it is asked for. What
    cannot be read is as good as a workflow of another kind: its own validation tells why."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, object] = {}

    def __getitem__(self, id: str) -> object:
        if id not in self._read:
            file = self._folder / f"{id}{SUFFIX}"
            if Path(id).name != id or not file.is_file():
                raise KeyError(id)
            try:
                document, problems = parse_text(file.read_text("utf-8"))
            except (OSError, UnicodeDecodeError):
                document, problems = None, ()
            self._read[id] = None if problems else document
        return self._read[id]

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in sorted(self._folder.glob(f"*{SUFFIX}")))

    def __len__(self) -> int:
        return sum(1 for _ in self)
