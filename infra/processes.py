"""Processes by (pid, start time): a pid alone may by now be another process.

Invariants: a zombie is dead; a process whose start time differs from the one noted is another process;
a process of before the last boot is dead. Nothing here signals a process that it has not just identified.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import Self

import msgspec

_STAT_STATE = 0  # field numbers of /proc/<pid>/stat after the command name, see proc(5)
_STAT_START = 19
_DEAD_STATES = frozenset("ZXx")


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """A process that can be recognised later. `started` is opaque text, only compared."""

    pid: int
    started: str

    @classmethod
    def current(cls) -> Self:
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this pid now; raises `ProcessLookupError` if there is none."""
        started = _start_time(pid)
        if started is None:
            raise ProcessLookupError(pid)
        return cls(pid=pid, started=started)

    def is_alive(self) -> bool:
        return self.started == _start_time(self.pid)

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False if it is gone (or has become another one's pid)."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _start_time(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return _start_time_from_proc(pid)
    return _start_time_from_ps(pid)


def _start_time_from_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name may itself hold spaces and parentheses
    if fields[_STAT_STATE] in _DEAD_STATES:
        return None
    return f"{boot}:{fields[_STAT_START]}"


def _start_time_from_ps(pid: int) -> str | None:
    """Where there is no /proc (macOS): second precision, which is enough to notice a reused pid."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    ).stdout.strip()
    state, _, started = answer.partition(" ")
    if not started or state[:1] in _DEAD_STATES:
        return None
    return started.strip()
