"""`python shifting_engine.py SECONDS`: an engine whose machine's clock is set by so many seconds, at each SIGUSR1."""

import signal
import sys
import time

_seconds, _nanoseconds = time.time, time.time_ns
by = int(sys.argv[1])
shift = 0


def jump(*_: object) -> None:
    global shift
    shift += by


signal.signal(signal.SIGUSR1, jump)
time.time = lambda: _seconds() + shift
time.time_ns = lambda: _nanoseconds() + shift * 1_000_000_000

from runtara.cli.__main__ import main  # noqa: E402  # with the clock as it is now

sys.argv[1:] = ["engine"]
main()
