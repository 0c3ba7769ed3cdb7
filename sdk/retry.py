"""When a failed step is tried again: a policy is a value, and waiting is someone else's business."""

import dataclasses
from datetime import timedelta


class Permanent(Exception):
    """Raise it (or a subclass) in a step whose failure no further try can cure."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try a step up to `max_attempts` times (None: without end), waiting longer each time.

    The wait after try n is `initial * factor**(n - 1)`, at most `max_delay`, then spread by ±`jitter` (a fraction).
    Errors of the classes in `permanent`, and `Permanent`, are not tried again.
    """

    max_attempts: int | None = 3
    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    max_delay: timedelta = timedelta(minutes=1)
    jitter: float = 0.1
    permanent: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; the first try counts, so use 1 or more, or None")
        if self.initial < timedelta(0) or self.max_delay < timedelta(0) or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("delays must not be negative, factor must be 1 or more, jitter between 0 and 1")

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

    def is_permanent(self, error: BaseException) -> bool:
        return isinstance(error, (Permanent, *self.permanent))


ONCE = Retry(max_attempts=1)
