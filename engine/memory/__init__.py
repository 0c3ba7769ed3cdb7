"""The engine's side of the platform in memory: one journal order, the real `decide` and `evolve`, a clock that jumps.

For tests of ours and of users'. Nothing is kept, nothing is sent; what a record does to an instance is what the real
engine does, because it is the same code. Left out is what only several processes need: partitions, owners that change,
leases, commits that fail.
"""

from .blobs import MemoryBlobs
from .bus import MemoryBus
from .clock import VirtualClock, VirtualTimer
from .engine import Answer, Ended, MemoryEngine, Out, RunDue, ToWorker
from .rows import Row, done_of, memos, view

__all__ = [
    "Answer",
    "Ended",
    "MemoryBlobs",
    "MemoryBus",
    "MemoryEngine",
    "Out",
    "Row",
    "RunDue",
    "ToWorker",
    "VirtualClock",
    "VirtualTimer",
    "done_of",
    "memos",
    "view",
]
