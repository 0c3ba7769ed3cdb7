"""The lives behind the golden event logs, and how a log is written down.

`python -m tests.lifecycle.golden_lives` writes the logs that are missing. It never rewrites one: a log that exists is
what some installation has in its database. A format that has to change gets a new log; the old one must still replay.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw

from runtara.engine.lifecycle import State
from runtara.protocol.events import AnyEvent, decode_event, encode_data
from runtara.protocol.records import Cancelled, Continued, Custom, Exited, Failed, Registered, Started, Unparked
from tests.lifecycle.life import CONTAINER, ERROR, INSTANCE, RUNNER, SECOND, Life, raw

FOLDER: Final = Path(__file__).parent / "golden"


class Line(msgspec.Struct, omit_defaults=True):
    """One event as its columns; the last line of a log has only the state."""

    version: int = 0
    type: str = ""
    key: str | None = None
    data: Raw = Raw(b"null")
    state: Raw = Raw(b"null")


def order_batch() -> Life:
    """Steps, a crash with back-off, and a result."""
    life = Life()
    life.start('{"order_ids":["a","b"]}')
    life.claim()
    life.step("a/charge", '"r1"')
    life.lose()
    life.claim("n2")
    life.lose()
    life.fire()
    life.claim("n3")
    life.step("b/charge", '"r2"')
    life.report(Custom, key="shipped", name="shipped", data=raw("2"))
    life.complete('["r1","r2"]')
    return life


def approval() -> Life:
    """A retried step, a sleep, a signal that came early, one that timed out, one that was given up."""
    life = Life().running()
    life.fail_step("quote", for_us=SECOND)
    life.suspend("quote")
    life.fire()
    life.claim("n2")
    life.step("quote", "12")
    life.signal("approved", '{"by":"ann"}')
    life.sleep("cool-down", 3)
    life.suspend("cool-down")
    life.fire()
    life.claim("n3")
    life.wait("approval")
    life.wait("second", "other", seconds=5)
    life.wait("third", "late")
    life.signal("late")
    life.report(Unparked, key="third")
    life.pause()
    life.suspend("second", reason="pause")
    life.fire()
    life.resume()
    life.claim("n4")
    life.report(Continued, input=raw('{"round":2}'))
    life.claim("n5")
    life.suspend(reason="released")
    life.claim("n6")
    life.complete()
    return life


def saga() -> Life:
    """A child, an undo, a cancel whose grace runs out, and the compensation."""
    life = Life().running()
    life.compensate("refund")
    life.step("charge", '"r1"')
    life.call("audit")
    life.call("mail", on_end="leave")
    life.child_done("audit")
    life.child_done("mail", status="failed")
    life.cancel("customer left")
    life.fire()
    life.claim("n2")
    life.step("~undo/refund", "true")
    life.report(Cancelled, reason="customer left")
    return life


def second_chance() -> Life:
    """A failure, a retry that makes it good, in a container that restarts."""
    life = Life()
    life.start()
    life.tell(Started(instance=INSTANCE, attempt=1, nonce="r1", worker="box", by="runner", token="t1"), RUNNER)
    for nonce in ("c1", "c2"):
        life.tell(Started(instance=INSTANCE, attempt=1, nonce=nonce, worker="box", token="t1"), CONTAINER)
    life.fail_step("flaky")
    life.report(Failed, error=ERROR)
    life.retry()
    life.claim("n3", worker="w2")
    life.step("flaky", "1")
    life.tell(Exited(instance=INSTANCE, attempt=3, worker="w2", reason="signal 9", stderr="Killed"), RUNNER)
    life.claim("n4", worker="w3")
    life.complete()
    return life


def measured() -> Life:
    """Containers whose runner says what they used, of a lost attempt and of the last."""
    life = Life()
    life.start()
    for attempt in (1, 2):
        nonce, token = f"r{attempt}", f"t{attempt}"
        record = Started(instance=INSTANCE, attempt=attempt, nonce=nonce, worker="r1", by="runner", token=token)
        life.tell(record, RUNNER)
        life.tell(Started(instance=INSTANCE, attempt=attempt, nonce=f"c{attempt}", worker="c", token=token), CONTAINER)
        if attempt == 2:
            life.complete()
        ended = Exited(
            instance=INSTANCE, attempt=attempt, worker="r1", reason="out of memory", memory_bytes=9, cpu_us=7
        )
        life.tell(ended, RUNNER)
    return life


def script() -> Life:
    """A script of the user's that started by itself, and started again."""
    life = Life()
    record = Registered(instance=INSTANCE, workflow="batch", worker="s1", nonce="s1", labels={"team": "a"})
    life.tell(record, CONTAINER)
    life.step("k1")
    life.tell(msgspec.structs.replace(record, nonce="s2"), CONTAINER)
    life.suspend(reason="self")
    life.tell(msgspec.structs.replace(record, nonce="s3"), CONTAINER)
    life.complete("3")
    return life


LIVES: Final[dict[str, Callable[[], Life]]] = {
    "order_batch": order_batch,
    "approval": approval,
    "saga": saga,
    "second_chance": second_chance,
    "script": script,
    "measured": measured,
}


def written(log: list[tuple[int, AnyEvent]], state: State) -> bytes:
    lines = [
        Line(version=version, type=type(event).__name__, key=event.key, data=Raw(encode_data(event)))
        for version, event in log
    ]
    lines.append(Line(state=Raw(msgspec.json.encode(state))))
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def read(path: Path) -> tuple[list[tuple[int, AnyEvent]], bytes]:
    """The events of a log, and the state that they led to when it was written."""
    *lines, last = [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
    events = [(line.version, decode_event(line.type, line.key, bytes(line.data))) for line in lines]
    return events, bytes(last.state)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, live in LIVES.items():
        path = FOLDER / f"{name}.ndjson"
        if not path.exists():
            life = live()
            path.write_bytes(written(life.log, life.state))
