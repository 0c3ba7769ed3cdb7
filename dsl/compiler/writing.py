"""Lines of code with their indentation, and names for what is defined in them.

Invariants: nested functions stand apart by one empty line; no two functions of a module have one name, and none hides a
word of Python or something that the code uses.
"""

import builtins
import keyword
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .printing import INDENT, Node, printed

_WORDS: Final = re.compile(r"[^a-z0-9]+")
_LONGEST: Final = 40
_TAKEN: Final = frozenset({"run", "ctx", "data", "variables", "error", "route", *keyword.kwlist, *dir(builtins)})


class Names:
    """The names of one module."""

    def __init__(self, taken: frozenset[str]) -> None:
        self._used = set(_TAKEN | taken)

    def new(self, text: str, suffix: str = "") -> str:
        """A name made of `text`, followed by `suffix`."""
        word = _WORDS.sub("_", text.lower()).strip("_")[:_LONGEST].strip("_") or "step"
        base = f"{word if word[0].isalpha() else f'step_{word}'}{suffix}"
        name, count = base, 1
        while name in self._used:
            count += 1
            name = f"{base}_{count}"
        self._used.add(name)
        return name


class Block:
    """Code that is being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0
        self._is_new = True  # nothing stands in this block yet
        self._is_behind_function = False
        self._is_new_function = False

    def line(self, text: str) -> None:
        self._separate()
        self.lines.append(" " * self._depth * INDENT + text)

    def comment(self, text: str) -> None:
        """`text` on one line, whatever it holds."""
        room = 116 - self._depth * INDENT
        plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        self.line(f"# {plain if len(plain) <= room else plain[: room - 1] + '…'}")

    def code(self, node: Node, *, before: str = "", after: str = "") -> None:
        self._separate()
        self.lines += printed(node, indent=self._depth * INDENT, before=before, after=after)

    @contextmanager
    def within(self, head: str | Node, *, before: str = "", after: str = ":") -> Iterator[None]:
        """Indented lines behind `head`; `pass`, if there are none."""
        if isinstance(head, str):
            self.line(before + head + after)
        else:
            self.code(head, before=before, after=after)
        self._depth += 1
        self._is_new = True
        self._is_new_function = isinstance(head, str) and head.startswith("async def ")
        yield
        if self._is_new:
            self.line("pass")
        self._depth -= 1
        self._is_new = False

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """A nested function."""
        if not self._is_behind_function and not (self._is_new and self._is_new_function):
            self.lines.append("")
        self._is_behind_function = self._is_behind_function and not self._is_new
        with self.within(head):
            yield
        self._is_behind_function = True

    def _separate(self) -> None:
        if self._is_behind_function:
            self.lines.append("")
        self._is_behind_function = False
        self._is_new = False
