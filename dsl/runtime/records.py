"""What the steps of one graph have put out, by id: the root `steps`.

Invariant: handlers that run side by side, in parallel branches, each read the error that led to them.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

ERROR: Final = "__error"
_caught: Final[ContextVar[tuple[object, object] | None]] = ContextVar("runtara_caught", default=None)


class Records(dict[str, Any]):
    """A dict whose `__error` is the one that was caught on the way to here, else the last one."""

    def caught(self, error: Mapping[str, object]) -> None:
        self[ERROR] = error
        _caught.set((self, error))

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  # it is `get`

    def __getitem__(self, key: str) -> Any:
        if key == ERROR:
            found = _caught.get()
            if found is not None and found[0] is self:
                return found[1]
        return super().__getitem__(key)
