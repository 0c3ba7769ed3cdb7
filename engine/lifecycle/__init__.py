"""The life of an instance, as pure functions: `decide` a record into events, `evolve` a state by them.

No I/O, no clock, no randomness: the engine's loop, the in-memory platform for tests and the audit all run exactly this.
"""

from runtara.protocol.messages import Status

from .claims import is_launched
from .decide import decide
from .decision import Decision, Note
from .effects import ControlDue, Effects, RunDue, effects
from .envelope import check_envelope
from .evolve import evolve
from .forking import copies, fork_frame, fork_record, unknown_key
from .keyset import UNKNOWN, KeySet, key_hash
from .memos import OF_UNDOS, is_failure, recorded_keys, served, takes_key
from .outbox import outbox_commands
from .reports import position
from .starting import start_unknown, version_fault, with_registration
from .state import Claim, State, Timer, Wait, needs_keys, with_keys

__all__ = [
    "OF_UNDOS",
    "UNKNOWN",
    "Claim",
    "ControlDue",
    "Decision",
    "Effects",
    "KeySet",
    "Note",
    "RunDue",
    "State",
    "Status",
    "Timer",
    "Wait",
    "check_envelope",
    "copies",
    "decide",
    "effects",
    "evolve",
    "fork_frame",
    "fork_record",
    "is_failure",
    "is_launched",
    "key_hash",
    "needs_keys",
    "outbox_commands",
    "position",
    "recorded_keys",
    "served",
    "start_unknown",
    "takes_key",
    "unknown_key",
    "version_fault",
    "with_keys",
    "with_registration",
]
