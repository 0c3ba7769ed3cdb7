"""How long the commit of a frame may wait for more: not at all if anybody waits for it.

A commit costs the engine, Postgres and the disk about the same however much it holds, and the disk's next sync is the
journal's as well. Recorded steps are durable when the journal has them, so nobody waits for their commit, and a few
milliseconds of them are one commit (m: at one step at a time, a third of the processor time of the whole platform).
A first attempt runs before its claim is answered, so its claim may wait for what it does at once.
"""

from typing import Final

from runtara.protocol.records import Checkpointed, Custom, Log, Progress, Started, StepFailure

from .reader import Frame

RECORDED_SECONDS: Final = 0.02
FIRST_CLAIM_SECONDS: Final = 0.002

_RECORDED: Final = {Checkpointed, StepFailure, Custom, Progress, Log}


def patience(frame: Frame) -> float:
    """Seconds. A record with a `reply` has somebody waiting for it; what is rejected is rare, and shown at once."""
    seconds = RECORDED_SECONDS if frame.records else 0.0
    for record in frame.records:
        if type(record) in _RECORDED and record.reply is None:
            continue
        if type(record) is Started and record.attempt == 1:
            seconds = FIRST_CLAIM_SECONDS
        else:
            return 0.0
    return seconds
