"""A stand-in for a worker process: speaks its link and does what its words say.

Run as `worker_double.py WORD… --link FD`. Words: `ready`, `host:INSTANCE:ATTEMPT`, `leave:INSTANCE:ATTEMPT`, `replace`,
`stderr:N` (N kilobytes), `say:TEXT` (to stderr), `exit:CODE`, `crash`, `stay` (until SIGTERM), `deaf` (whatever
comes), `follow:FILE` (go on with the words in the file).
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--link", type=int, required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    words = list(options.words)
    while words:
        word, _, rest = words.pop(0).partition(":")
        if word == "follow":
            words = Path(rest).read_text().split()
        else:
            act(word, rest, options.link, stop)


def act(word: str, rest: str, link: int, stop: threading.Event) -> None:
    match word:
        case "ready":
            os.write(link, f"ready w-{os.getpid()} greet part\n".encode())
        case "host":
            os.write(link, f"+{rest.replace(':', ' ')}\n".encode())
        case "leave":
            os.write(link, f"-{rest.replace(':', ' ')}\n".encode())
        case "replace":
            os.write(link, b"replace\n")
        case "stderr":
            for _ in range(int(rest)):
                sys.stderr.write("x" * 1023 + "\n")
        case "say":
            sys.stderr.write(rest + "\n")
            sys.stderr.flush()
        case "exit":
            sys.exit(int(rest))
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stay":
            stop.wait()
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Event().wait()


main()
