"""`python shifted.py SECONDS worker TARGET… --link FD` or `… engine --child`: one whose wall clock is off.

A worker's is off from the start; an engine's jumps when it gets SIGUSR1.
"""

import signal
import sys
import time

SHIFT = int(sys.argv[1])
_seconds, _nanoseconds = time.time, time.time_ns


def jump(*_: object) -> None:
    time.time = lambda: _seconds() + SHIFT
    time.time_ns = lambda: _nanoseconds() + SHIFT * 1_000_000_000


if sys.argv[2] == "worker":
    jump()
    from runtara.sdk.run import main  # with the clock as it is now

    sys.exit(main(sys.argv[3:]))

signal.signal(signal.SIGUSR1, jump)
sys.argv[1:] = sys.argv[2:]

from runtara.cli.__main__ import main as command  # noqa: E402  # with the arguments that are meant for it

command()
