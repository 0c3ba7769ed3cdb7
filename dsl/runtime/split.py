"""Running a body for each item of an array, so many at once.

Invariants: results stand in the order of the items, whatever order the bodies end in; no more tasks exist than run at
once; an item's key holds its index, and a repeated one's its try; a body that fails ends those that run beside it,
unless failures are to be collected.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from runtara.sdk.context import Context
from runtara.sdk.limits import within
from runtara.sdk.retry import Retry

from ..schemas import Fields, conform
from .agent import MAX_RETRY_DELAY
from .errors import StepError, step_error
from .parallel import together
from .selecting import array

DEFAULT_PARALLELISM: Final = 100  # where a document names none: enough to hide latency, few enough for any memory
OUTCOMES: Final = ("success", "error", "aborted", "unknown", "skipped")
OfItem = Callable[[int, object], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """See the Split step. `parallelism` 0: as many as `DEFAULT_PARALLELISM`."""

    parallelism: int = 0
    sequential: bool = False
    dont_stop_on_failed: bool = False
    batch_size: int = 0
    max_retries: int = 0
    retry_delay_ms: int = 1_000
    timeout_ms: int | None = None
    allow_null: bool = False
    convert_single_value: bool = False
    input_schema: Fields = field(default_factory=dict)
    output_schema: Fields = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        return 1 if self.sequential else self.parallelism or DEFAULT_PARALLELISM

    @property
    def retry(self) -> Retry:
        initial = timedelta(milliseconds=self.retry_delay_ms)
        return Retry(
            max_attempts=self.max_retries + 1, initial=initial, max_delay=max(MAX_RETRY_DELAY, initial), jitter=0
        )


async def split_items(ctx: Context, key: str, value: object, of_item: OfItem, options: SplitOptions) -> object:
    """The results. Raises what the first body failed with, or `StepTimeout`."""
    items = _items(value, options)
    split = _Split(ctx, items, of_item, options)
    with ctx.scope(key):
        if options.timeout_ms is None:
            await split.run()
        else:
            await within(ctx, "timeout", timedelta(milliseconds=options.timeout_ms), split.run)
    return split.collected() if options.dont_stop_on_failed else split.results


def _items(value: object, options: SplitOptions) -> list[object]:
    if value is None and options.allow_null:
        return []
    if not isinstance(value, list) and value is not None and options.convert_single_value:
        value = [value]
    items = array(value)
    size = options.batch_size
    return [items[n : n + size] for n in range(0, len(items), size)] if size else items


class _Split:
    def __init__(self, ctx: Context, items: list[object], of_item: OfItem, options: SplitOptions) -> None:
        self.results: list[object] = [None] * len(items)
        self._failures: dict[int, StepError] = {}
        self._ctx = ctx
        self._items = items
        self._of_item = of_item
        self._options = options
        self._retry = options.retry

    async def run(self) -> None:
        waiting = iter(range(len(self._items)))
        lanes = min(self._options.at_once, len(self._items))
        if lanes == 1:
            await self._lane(waiting)
        elif lanes:
            await together(*(self._lane(waiting) for _ in range(lanes)))

    async def _lane(self, waiting: Iterator[int]) -> None:
        """Item after item, as long as there are any."""
        for index in waiting:
            try:
                self.results[index] = await self._item(index)
            except StepError as exc:
                if not self._options.dont_stop_on_failed:
                    raise
                self._failures[index] = exc

    async def _item(self, index: int) -> object:
        attempt = 1
        while True:
            try:
                with self._ctx.scope(str(index) if attempt == 1 else f"{index}#{attempt}"):
                    return await self._body(index)
            except StepError as exc:
                wait = None if exc.permanent else self._retry.delay(attempt)
                if wait is None:
                    raise exc.about(exc.step, index=index) from exc
            await self._ctx.sleep(f"{index}#{attempt}", wait)
            attempt += 1

    async def _body(self, index: int) -> object:
        options, item = self._options, self._items[index]
        try:
            if options.input_schema:
                item = conform(item, options.input_schema, what=f"item {index}")
            result = await self._of_item(index, item)
            return conform(result, options.output_schema, what=f"the result of item {index}")
        except ValueError as exc:
            error = step_error(exc, "")
            if error is None:
                raise
            raise error from exc

    def collected(self) -> Mapping[str, object]:
        failures = self._failures
        data: dict[str, list[object]] = {name: [] for name in OUTCOMES}
        data["success"] = [result for index, result in enumerate(self.results) if index not in failures]
        data["error"] = [
            {"index": index, "item": self._items[index], "error": failures[index].as_seen()}
            for index in sorted(failures)
        ]
        stats = {**{name: len(found) for name, found in data.items()}, "total": len(self._items)}
        return {"data": data, "stats": stats, "hasFailures": bool(failures)}
