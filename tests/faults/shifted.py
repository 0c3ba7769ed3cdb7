"""`python shifted.py SECONDS TARGET… --link FD`: a worker whose wall clock is off by so many seconds."""

import sys
import time

SHIFT = int(sys.argv[1])
_seconds, _nanoseconds = time.time, time.time_ns
time.time = lambda: _seconds() + SHIFT
time.time_ns = lambda: _nanoseconds() + SHIFT * 1_000_000_000

from runtara.sdk.run import main  # noqa: E402  # with the clock as it is now

sys.exit(main(sys.argv[2:]))
