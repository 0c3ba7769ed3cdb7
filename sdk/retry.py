"""When a failed step is tried again: a policy is a value, and waiting is someone else's business.

Two budgets: `max_attempts` is for failures, `max_retry_after` and `retry_after_budget` for refusals that say when to
come again (a 429 with its Retry-After). A server that is busy for a while must not use up the tries that are meant for
errors.
"""

import dataclasses
import math
from datetime import timedelta
from typing import Final, NamedTuple

_MICROSECOND: Final = timedelta(microseconds=1)
MAX_RETRY_AFTER: Final = timedelta(days=365)  # whoever asks for more has sent a date, or nonsense


class Permanent(Exception):
    """Raise it (or a subclass) in a step whose failure no further try can cure.

    Any other exception with an attribute `permanent` that is True does the same.
    """


class RetryAfter(Exception):
    """Raise it in a step that was told when to come again: the next try waits for `retry_after` (or seconds).

    Such tries do not count towards `max_attempts` of the step's `Retry`. Any other exception with an attribute
    `retry_after` (a timedelta, or seconds as a number or text) does the same. Without `retry=` there is no next try.
    """

    def __init__(self, retry_after: timedelta | float | str, message: str = "") -> None:
        self.retry_after = retry_after
        super().__init__(message or f"asked to come again after {retry_after}")


class Tries(NamedTuple):
    """How often a step was tried; after `asked` of those tries the error itself said when to come again, and such waits
    took `waited_us` in all."""

    made: int = 0
    asked: int = 0
    waited_us: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try a step up to `max_attempts` times (None: without end), waiting longer each time.

    The wait after try n is `initial * factor**(n - 1)`, at most `max_delay`, then spread by ±`jitter` (a fraction).
    Errors of the classes in `permanent`, and `Permanent`, are not tried again. An error that has a `retry_after` (see
    `RetryAfter`) sets the wait itself, up to `max_retry_after` times (None: without end); these tries do not count as
    attempts, and `jitter` only lengthens their waits. Beyond that it counts as any other error. With a
    `retry_after_budget` all such waits of the step must fit into it: one that does not makes the failure final.

    A wait that is long is spent out of memory (see `linger` of `@workflow`), and survives whatever is killed meanwhile.
    """

    max_attempts: int | None = 3
    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    max_delay: timedelta = timedelta(minutes=1)
    jitter: float = 0.1
    permanent: tuple[type[Exception], ...] = ()
    max_retry_after: int | None = 100
    retry_after_budget: timedelta | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; the first try counts, so use 1 or more, or None")
        if self.initial < timedelta(0) or self.max_delay < timedelta(0) or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("delays must not be negative, factor must be 1 or more, jitter between 0 and 1")
        if self.max_retry_after is not None and self.max_retry_after < 0:
            raise ValueError(f"max_retry_after is {self.max_retry_after}; use 0 or more, or None for no limit")
        if self.retry_after_budget is not None and self.retry_after_budget < timedelta(0):
            raise ValueError(f"retry_after_budget is {self.retry_after_budget}; it must not be negative")

    def delay(self, attempt: int, *, random: float = 0.5) -> timedelta | None:
        """How long to wait after try `attempt` (from 1) failed; None: that was the last. `random`: of the jitter."""
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        limit = self.max_delay.total_seconds()
        try:
            seconds = min(self.initial.total_seconds() * self.factor ** (attempt - 1), limit)
        except OverflowError:
            seconds = limit
        return timedelta(seconds=seconds * (1 + self.jitter * (2 * random - 1)))

    def wait_after(self, error: BaseException, tries: Tries, *, random: float = 0.5) -> tuple[timedelta | None, Tries]:
        """How long to wait after the last of `tries` failed with `error` (None: that was the last), and the tries as
        they count from now on."""
        if self.is_permanent(error):
            return None, tries
        asked = asked_for(error)
        if asked is not None and self._allows(tries):
            waited_us = tries.waited_us + asked // _MICROSECOND
            if self.retry_after_budget is not None and waited_us * _MICROSECOND > self.retry_after_budget:
                return None, tries
            return asked * (1 + self.jitter * random), tries._replace(asked=tries.asked + 1, waited_us=waited_us)
        wait = self.delay(tries.made - tries.asked, random=random)
        return (wait if wait is None or asked is None else max(wait, asked)), tries

    def _allows(self, tries: Tries) -> bool:
        """Whether the error may set one more wait itself."""
        return self.max_retry_after is None or tries.asked < self.max_retry_after

    def is_permanent(self, error: BaseException) -> bool:
        return isinstance(error, (Permanent, *self.permanent)) or getattr(error, "permanent", None) is True


def asked_for(error: BaseException) -> timedelta | None:
    """The wait that `error` asks for by its attribute `retry_after`; None if it has none that makes sense."""
    asked: object = getattr(error, "retry_after", None)
    if isinstance(asked, timedelta):
        return min(max(asked, timedelta(0)), MAX_RETRY_AFTER)
    if asked is None or isinstance(asked, bool) or not isinstance(asked, (int, float, str)):
        return None
    try:
        seconds = float(asked)
    except (ValueError, OverflowError):  # a date, say
        return None
    return None if math.isnan(seconds) else timedelta(seconds=min(max(seconds, 0), MAX_RETRY_AFTER.total_seconds()))


ONCE = Retry(max_attempts=1, max_retry_after=0)
