"""A plain script in the low-level style. Usage: script.py ID COUNT CRASH_AFTER TRACE_FILE."""

import os
import signal
import sys

from runtara.sdk.sync import Instance


def main(id: str, count: int, crash_after: int, trace: str) -> None:
    with Instance.local(id, workflow="batch") as instance:
        instance.register({"count": count})
        for n in range(count):
            saved = instance.checkpoint(f"item-{n}", {"n": n})
            if saved.existing:
                assert saved.state == {"n": n}
                continue
            with open(trace, "a") as file:
                file.write(f"{n}\n")
            if n == crash_after:
                os.kill(os.getpid(), signal.SIGKILL)
        instance.emit("counted", {"count": count})
        instance.completed({"count": count})


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
