"""Keys: the name under which an operation's outcome is recorded, and found again by a resumed run.

An automatic key is made from what is called with which arguments, never from when: under `gather`, branches get
their own results in whatever order they ask. `name~` and 8 hex digits of the arguments; a repeat of the very same
call gets `#2`, `#3` (such calls are interchangeable). Two different calls whose 8 digits are equal are told apart
by 16 more digits that lie beside the record: the one that finds the short key taken uses all 24.

Invariants: a key is given out once an attempt; what was cancelled before anything was recorded gives its key back;
keys that begin with `~` are ours.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Final

from runtara.protocol.errors import DuplicateKey, InvalidKey, KeyMismatch, KeyNeeded
from runtara.protocol.ids import check_key
from runtara.protocol.limits import MAX_KEY_LENGTH

from .signature import StepSpec
from .values import canonical, to_plain

SHORT_DIGITS: Final = 8
_REPEAT: Final = re.compile(r"#\d+$")


def input_fingerprint(input: object) -> str:
    """24 hex digits of a child's input, as plain JSON values."""
    return hashlib.blake2b(canonical(input, to_plain), digest_size=12).hexdigest()


def long_part(fingerprint: str) -> str:
    """The digits that are not in the key."""
    return fingerprint[SHORT_DIGITS:]


Recorded = Callable[[str], str | None]
"""The digest that lies beside the record of a key; None if nothing is recorded under it."""


class Keys:
    """The keys that one attempt has given out."""

    def __init__(self, recorded: Recorded | None) -> None:
        self._recorded = recorded
        self._used: set[str] = set()
        self._digests: dict[str, str] = {}
        self._repeats: dict[str, int] = {}
        self._free: dict[str, list[str]] = {}
        self._names: dict[str, tuple[str, str]] = {}

    def explicit(self, prefix: str, key: str) -> str:
        """The author's own key, in its scope. Raises `InvalidKey`, `DuplicateKey`."""
        full = check_key(prefix + key if prefix else key)
        if key[:1] == "~":
            raise InvalidKey(key=f"{full!r} (keys that begin with ~ are reserved)")
        if full in self._used:
            raise DuplicateKey(key=full)
        self._used.add(full)
        return full

    def of_step(
        self, prefix: str, spec: StepSpec, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[str, str]:
        """The key of a direct call, and the digest to keep beside its record. Raises `KeyNeeded` and as `explicit`."""
        if spec.template is not None:
            return self.explicit(prefix, f"{spec.name}/{spec.template.render(args, kwargs)}"), ""
        if self._names.setdefault(spec.name, spec.identity) != spec.identity:
            known = ".".join(self._names[spec.name])  # functions of one name would be given each other's results
            raise KeyMismatch(key=spec.name, reason=f"the step {known} has this name, too")
        return self.automatic(prefix, spec.name, spec.fingerprint(args, kwargs))

    def automatic(self, prefix: str, name: str, fingerprint: str) -> tuple[str, str]:
        """A key from a name and a fingerprint of 24 digits, and the digest to keep beside its record."""
        base = f"{prefix}{name}~{fingerprint[:SHORT_DIGITS]}"
        digest = fingerprint[SHORT_DIGITS:]
        if len(base) > MAX_KEY_LENGTH - 32:
            raise InvalidKey(key=base)
        if (self._recorded and self._is_long(base, digest)) or self._digests.setdefault(base, digest) != digest:
            base += digest
        return self._repeat(base), digest

    def of_event(self, prefix: str, name: str, data: object) -> str:
        """The key of a custom event. Raises `KeyNeeded`."""
        try:
            text = canonical([name, data], to_plain)
        except (TypeError, RecursionError) as exc:
            raise KeyNeeded(argument="data", function=f"emit({name!r})", reason=str(exc)) from exc
        return self._repeat(check_key(f"{prefix}{name}~{hashlib.blake2b(text, digest_size=8).hexdigest()}"))

    def of_wait(self, prefix: str, key: str | None, name: str, is_over: Callable[[str], bool]) -> tuple[str, str]:
        """The key of a wait, and the one to release: the author's, or made of `name`.

        One under which a wait was given up (`is_over`) has no outcome and never will have: the next number is taken.
        """
        if key is None:
            found = self._repeat(check_key(prefix + name))
            while is_over(found):
                found = self._repeat(prefix + name)
            return found, found
        full = found = self.explicit(prefix, key)
        count = 1
        while is_over(found):
            count += 1
            found = check_key(f"{full}#{count}")
        return found, full

    def release(self, key: str) -> None:
        """Nothing was recorded under `key`: the next who asks gets it."""
        if key in self._used:
            self._used.discard(key)
        else:
            self._free.setdefault(_REPEAT.sub("", key), []).append(key)

    def _is_long(self, base: str, digest: str) -> bool:
        """Whether an earlier attempt gave this call its long key, or the short one to a different call."""
        assert self._recorded is not None
        return self._recorded(base + digest) is not None or (self._recorded(base) or digest) != digest

    def _repeat(self, base: str) -> str:
        free = self._free.get(base)
        if free:
            return free.pop()
        count = self._repeats[base] = self._repeats.get(base, 0) + 1
        key = base if count == 1 else f"{base}#{count}"
        if key in self._used:
            raise DuplicateKey(key=key)
        return key
