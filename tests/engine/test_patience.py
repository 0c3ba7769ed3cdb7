"""How long a commit may wait: never if anybody waits for it."""

from typing import Any

import pytest
from msgspec import Raw

from runtara.engine import patience as module
from runtara.engine.patience import FIRST_CLAIM_SECONDS, RECORDED_SECONDS
from runtara.engine.reader import Frame
from runtara.protocol.records import (
    Checkpointed,
    Completed,
    Custom,
    Parked,
    Pause,
    Record,
    Started,
    Suspended,
    TimerDue,
)


def patience(records: list[Record]) -> float:
    return module.patience(Frame("subject", 1, 0, b"", list(records), []))  # type: ignore[arg-type]


CLAIM: dict[str, Any] = {"instance": "i-1", "attempt": 1, "nonce": "n", "seq": 1}
STEP = Checkpointed(**CLAIM, key="k", data=Raw(b"1"))
EVENT = Custom(**CLAIM, key="e", name="seen")


def test_recorded_steps_wait_for_each_other() -> None:
    assert patience([STEP, EVENT]) == RECORDED_SECONDS


def test_a_first_claim_waits_a_little_for_what_its_attempt_does_at_once() -> None:
    claim = Started(instance="i-1", attempt=1, nonce="n", worker="w", reply="_INBOX.t.w.claims")
    assert patience([claim, STEP]) == FIRST_CLAIM_SECONDS


@pytest.mark.parametrize(
    "record",
    [
        Checkpointed(**CLAIM, key="k", data=Raw(b"1"), reply="_INBOX.t.w.commits"),
        Started(instance="i-1", attempt=2, nonce="n", worker="w", reply="_INBOX.t.w.claims"),
        Completed(**CLAIM),
        Suspended(**CLAIM, reason="parked", keys=("k",)),
        Parked(**CLAIM, key="k", kind="sleep", for_us=1),
        Pause(instance="i-1", id="p-1"),
        TimerDue(instance="i-1", tenant="t", owner="o", timer=3),
    ],
    ids=lambda record: type(record).__name__,
)
def test_nothing_waits_that_somebody_waits_for(record: Record) -> None:
    assert patience([STEP, record, STEP]) == 0.0
