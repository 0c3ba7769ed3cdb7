"""Whether a run with a crash came to the same as the undisturbed one, and if not, why.

Pure: two runs go in, a sentence comes out that names what broke which promise, and what to change.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from runtara.protocol.records import Record

from .effects import Call

Key = tuple[str, str]  # instance, key


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    `keys`: what its log holds; `stored`: what it held when the process died; `dead`: the attempts that died.
    """

    outcome: object
    state: object
    sent: tuple[Record, ...]
    calls: tuple[Call, ...]
    keys: frozenset[Key]
    stored: frozenset[Key] = frozenset()
    dead: frozenset[int] = frozenset()

    def died(self, call: Call) -> bool:
        return id(call.host) in self.dead

    def was_recorded(self, call: Call) -> bool:
        """Whether the step in which the call happened was in the log when its process died."""
        return (call.instance or "", call.step or "") in self.stored


def complaint(quiet: Run, crashed: Run, *, same_keys: bool) -> str | None:
    """What is wrong with the run that crashed; None if nothing is."""
    if same_keys and (changed := _changed_keys(quiet, crashed)) is not None:
        return changed
    for broken in _broken_promises(quiet, crashed):
        return broken
    if quiet.outcome != crashed.outcome:
        return (
            f"the outcome is another one:\n  undisturbed: {quiet.outcome!r}\n  with the crash: {crashed.outcome!r}\n"
            "It was built on something that no record holds: a variable that a step changes, the time, chance. Let "
            "steps return what later code needs"
        )
    if quiet.state != crashed.state:
        return (
            f"the world outside (`state=`) is another one:\n  undisturbed: {quiet.state!r}\n"
            f"  with the crash: {crashed.state!r}\n"
            "A step runs at least once: make what it does repeatable (ctx.idempotency_key), or guard it with "
            "ctx.checkpoint"
        )
    return None


def _changed_keys(quiet: Run, crashed: Run) -> str | None:
    new, missing = sorted(crashed.keys - quiet.keys), sorted(quiet.keys - crashed.keys)
    if not (new and missing):
        return None
    return (
        f"other keys were recorded: {_names(new)} instead of {_names(missing)}. A key must be the same in every "
        "attempt, or what it recorded is never found again: make it from the input, not from the time, chance or a "
        "counter (ctx.uuid and ctx.random are the same each time). If the workflow may well take another way after a "
        "crash, pass same_keys=False"
    )


def _broken_promises(quiet: Run, crashed: Run) -> Iterator[str]:
    expected = Counter(call.what for call in quiet.calls)
    happened = Counter(call.what for call in crashed.calls)
    calls = {call.what: call for call in (*quiet.calls, *crashed.calls)}
    for what, call in calls.items():
        extra = happened[what] - expected[what]
        if not expected[what]:
            yield f"{what} was called, which the undisturbed run never does"
        elif extra < 0 and call.promise == "at least once":
            yield (
                f"{what} was lost: called {_times(happened[what])} instead of {_times(expected[what])}. What a "
                "checkpoint guards is lost if the crash comes between the two: do it inside a step, or say that it may "
                "be missing with Effects.at_most_once"
            )
        elif extra > 0:
            mine = [each for each in crashed.calls if each.what == what]
            excused = sum(
                crashed.died(each) and each.step is not None and not crashed.was_recorded(each) for each in mine
            )
            if call.promise == "at most once" or extra > excused:
                yield _repeated(what, mine, crashed)


def _repeated(what: str, calls: list[Call], run: Run) -> str:
    times = f"{what} was called {_times(len(calls))}"
    before = [call for call in calls if run.died(call)]
    after = [call for call in calls if not run.died(call)]
    outside = next((call for call in calls if call.step is None), None)
    if outside is not None:
        return (
            f"{times}: it is called outside of any step, so every attempt calls it again. Call it in a step "
            "(at least once), or after a checkpoint that it looks at: `if not (await ctx.checkpoint(key, …)).existing`"
        )
    keys = {call.step for call in before}, {call.step for call in after}
    if keys[0] != keys[1]:
        return (
            f"{times}, under the key {_quoted(keys[0])} before the crash and {_quoted(keys[1])} after it. A key must "
            "be the same in every attempt: make it from the input, not from the time, chance or a counter"
        )
    return (
        f"{times}, in step {_quoted(keys[0])}: a step that was not recorded runs again after a crash. What may happen "
        "at most once belongs behind ctx.checkpoint; else note it with Effects.at_least_once"
    )


def _names(keys: list[Key]) -> str:
    return ", ".join(f"{key!r} of {instance}" for instance, key in keys[:3]) + (" …" if len(keys) > 3 else "")


def _quoted(keys: set[str | None]) -> str:
    return ", ".join(sorted(repr(key) for key in keys))


def _times(count: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(count, f"{count} times")
