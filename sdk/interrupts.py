"""Throwing `Stopped` into a thread that runs an instance's code, and into nothing else.

Code in a thread leaves at its next call of the context. Code that makes none (an endless loop) is interrupted: Python
raises an exception between two of its bytecodes (`PyThreadState_SetAsyncExc`), or, while it is blocked outside of
Python, as soon as it is back. Where that is nobody can say, so it is the last resort: it may hit between taking a lock
and the `try` that gives it back.

Threads are kept for the next user, so what is thrown must not reach whoever uses the thread next. Three rules exclude
that:

1. An exception is thrown only while holding the gate of the call it is meant for. The call's thread takes this gate
   when the code has ended, and never gives it back; so nothing is thrown from then on. It is a lock that its owner may
   take again, because the thread may be interrupted just behind the taking and then does it once more.
2. What was thrown and not raised yet when the code ended is raised before the thread leaves `close`: Python raises it
   at the next jump backwards at the latest. (It could be taken back by throwing nothing; but CPython 3.11 then looks
   for an exception at each call and jump, in all threads, until the next one is thrown.)
3. A call is interrupted at most once. So whatever handles the exception cannot be interrupted a second time: one
   `except` around all that runs between the first and the last moment at which it can hit (see `threads.Call.run`) is
   enough to see it, wherever it hits.
"""

import ctypes
import threading
from typing import Any, Final

from runtara.protocol.errors import Stopped

_throw: Final[Any] = ctypes.pythonapi.PyThreadState_SetAsyncExc
_throw.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
_throw.restype = ctypes.c_int


class Interruptible:
    """One run of code in a thread. `open` and `close` belong to that thread, `interrupt` to any other."""

    __slots__ = ("_gate", "ident", "is_interrupted")

    def __init__(self) -> None:
        self._gate = threading.RLock()
        self.ident = 0  # of the thread, once it has begun
        self.is_interrupted = False

    def open(self) -> None:
        """The code begins: from now on it may be interrupted."""
        self.ident = threading.get_ident()

    def close(self) -> None:
        """The code has ended: once this has returned, nothing is thrown any more, and nothing is on its way.

        Call it again if it raises what was."""
        self._gate.acquire()
        if self.is_interrupted:
            for _ in range(2):
                pass  # raised here, if it was not yet

    def interrupt(self) -> bool:
        """Throw `Stopped` into the code. False if it was done before, or the code has not begun or has ended."""
        if not self._gate.acquire(blocking=False):
            return False
        try:
            if self.ident == 0 or self.is_interrupted:
                return False
            self.is_interrupted = True
            return bool(_throw(self.ident, id(Stopped)) == 1)
        finally:
            self._gate.release()
