"""What `decide` answers with, and the draft with which the longer decisions are made."""

from typing import Literal

import msgspec

from runtara.protocol.errors import RuntaraError, StaleClaim
from runtara.protocol.events import AnyEvent

from .evolve import evolve
from .state import State

Note = Literal["applied", "duplicate", "stale", "refused"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`events` to append, and what became of the record.

    `applied`: it had its effect. `duplicate`: it had it before; it is answered again. `stale`: it came too late, or
    from a claim that is not (or no longer) current; `error` says so to whoever asked. `refused`: it was wrong; `error`
    says why, and if it was a report of the current claim, `events` end that attempt.
    """

    events: tuple[AnyEvent, ...] = ()
    error: RuntaraError | None = None
    note: Note = "applied"


DUPLICATE = Decision(note="duplicate")
STALE = Decision(note="stale")


def refused(error: RuntaraError) -> Decision:
    return Decision(error=error, note="refused")


def stale_claim(state: State | None, instance: str, attempt: int) -> Decision:
    status = "unknown" if state is None else f"{state.status.value}, attempt {state.attempt}"
    return Decision(error=StaleClaim(instance=instance, attempt=attempt, status=status), note="stale")


class Draft:
    """Events in the making: each changes the state that the next one is decided on."""

    def __init__(self, state: State, instance: str, now: int) -> None:
        self.state = state
        self.instance = instance
        self.now = now
        self.events: list[AnyEvent] = []

    def emit(self, *events: AnyEvent) -> None:
        for event in events:
            self.state = evolve(self.state, event)
            self.events.append(event)

    def decision(self, note: Note = "applied", error: RuntaraError | None = None) -> Decision:
        return Decision(events=tuple(self.events), note=note, error=error)
