"""The supervisor, with real child processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runtara.protocol.limits import MAX_REASON_LENGTH
from runtara.runner.child import Ended
from runtara.runner.supervisor import Backoff, Supervisor, WorkersFailed

DOUBLE = str(Path(__file__).with_name("worker_double.py"))
DEADLINE_SECONDS = 10.0


async def _environ() -> dict[str, str]:
    return dict(os.environ)


class Bench:
    """A supervisor of doubles, and what it said."""

    def __init__(self, *words: str, processes: int = 1, reloads: AsyncIterator[list[str]] | None = None) -> None:
        self.ends: list[Ended] = []
        self.stderr = bytearray()
        self.supervisor = Supervisor(
            [sys.executable, DOUBLE, *words],
            _environ,
            processes=processes,
            grace=0.0,
            on_ended=self.ends.append,
            reloads=reloads,
            forward=self.stderr.extend,
        )

    @property
    def pids(self) -> set[int]:
        return {child.pid for child in self.supervisor.children}

    @property
    def workers(self) -> set[str | None]:
        return {child.worker for child in self.supervisor.children if child.ready.is_set()}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "words"


async def test_it_is_open_once_all_processes_are_ready() -> None:
    bench = Bench("ready", "stay", processes=2)
    async with bench.supervisor:
        assert len(bench.workers) == 2
        assert {child.workflows for child in bench.supervisor.children} == {("greet", "part")}


async def test_a_killed_process_is_reported_with_what_it_hosted_and_replaced() -> None:
    bench = Bench("ready", "host:a:1", "host:b:7", "leave:a:1", "host:c:2", "stay")
    async with bench.supervisor:
        (pid,) = bench.pids
        (worker,) = bench.workers
        (child,) = bench.supervisor.children
        await until(lambda: child.hosted == {("b", 7), ("c", 2)})
        os.kill(pid, signal.SIGKILL)
        await until(lambda: bool(bench.workers - {worker}))
        (end,) = bench.ends
    assert end.worker == worker
    assert end.hosted == (("b", 7), ("c", 2))
    assert end.reason == "the worker process was ended by SIGKILL"


async def test_the_last_words_of_a_process_are_kept_and_passed_on(script: Path) -> None:
    script.write_text("ready say:alas exit:3")
    bench = Bench(f"follow:{script}")
    async with bench.supervisor:
        await until(lambda: bool(bench.ends))
        script.write_text("ready stay")
        await until(lambda: bool(bench.workers))
    end = bench.ends[0]
    assert (end.code, end.reason, end.stderr) == (3, "the worker process exited with code 3", "alas\n")
    assert b"alas\n" in bench.stderr


async def test_a_process_that_writes_much_to_stderr_is_not_blocked_and_its_tail_is_bounded(script: Path) -> None:
    script.write_text("ready stderr:2000 say:end exit:1")
    bench = Bench(f"follow:{script}")
    async with bench.supervisor:
        await until(lambda: bool(bench.ends))
        script.write_text("ready stay")
        await until(lambda: bool(bench.workers))
    assert len(bench.stderr) >= 2000 * 1024
    assert len(bench.ends[0].stderr) == MAX_REASON_LENGTH
    assert bench.ends[0].stderr.endswith("end\n")


async def test_a_target_that_cannot_be_loaded_ends_the_supervisor() -> None:
    bench = Bench("say:no_such_module", "exit:2")
    with pytest.raises(WorkersFailed) as caught:
        async with bench.supervisor:
            pass
    assert caught.value.code == 2
    assert b"no_such_module" in bench.stderr


async def test_leaving_lets_processes_drain() -> None:
    bench = Bench("ready", "stay", "say:drained", processes=2)
    async with bench.supervisor:
        pass
    assert [end.code for end in bench.ends] == [0, 0]
    assert bench.stderr.count(b"drained") == 2


async def test_a_process_that_does_not_drain_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.runner.supervisor.DRAIN_MARGIN_SECONDS", 0.3)
    bench = Bench("ready", "host:a:1", "deaf")
    async with bench.supervisor:
        (child,) = bench.supervisor.children
        await until(lambda: child.hosted == {("a", 1)})
    assert [end.reason for end in bench.ends] == ["the worker process was ended by SIGKILL"]
    assert bench.ends[0].hosted == (("a", 1),)


async def test_a_process_that_asks_to_be_replaced_drains_while_its_successor_works(script: Path) -> None:
    script.write_text("ready host:a:1 replace stay leave:a:1 say:handed_over exit:75")
    bench = Bench(f"follow:{script}")
    async with bench.supervisor:
        (old,) = bench.workers
        script.write_text("ready stay")
        await until(lambda: bool(bench.workers - {old}) and len(bench.ends) == 1)
    assert [(end.worker, end.code, end.hosted) for end in bench.ends[:1]] == [(old, 75, ())]
    assert b"handed_over" in bench.stderr


async def test_one_that_does_not_even_leave_is_killed_and_nobody_waits_for_that(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.runner.supervisor.DRAIN_MARGIN_SECONDS", 0.3)
    script.write_text("ready host:a:1 replace deaf")
    bench = Bench(f"follow:{script}")
    async with bench.supervisor:
        (old,) = bench.workers
        script.write_text("ready stay")
        await until(lambda: bool(bench.workers - {old}))
        await until(lambda: len(bench.ends) == 1)
    assert bench.ends[0].reason == "the worker process was ended by SIGKILL"
    assert bench.ends[0].hosted == (("a", 1),)


async def test_leaving_because_code_does_not_end_is_no_failure_to_wait_after(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.runner.supervisor.FIRST_DELAY_SECONDS", 3_600.0)
    script.write_text("ready exit:75")
    bench = Bench(f"follow:{script}")
    async with bench.supervisor:
        await until(lambda: len(bench.ends) >= 4)
        script.write_text("ready stay")
        await until(lambda: bool(bench.workers))
    assert {end.code for end in bench.ends[:4]} == {75}


class Reloads:
    """Reloads on request."""

    def __init__(self) -> None:
        self._wanted: asyncio.Queue[list[str]] = asyncio.Queue()

    def now(self) -> None:
        self._wanted.put_nowait(["app.py"])

    async def stream(self) -> AsyncIterator[list[str]]:
        while True:
            yield await self._wanted.get()


async def test_a_reload_replaces_every_process_and_the_old_ones_drain(script: Path) -> None:
    script.write_text("ready stay say:old_drained")
    reloads = Reloads()
    bench = Bench(f"follow:{script}", processes=2, reloads=reloads.stream())
    async with bench.supervisor:
        before = bench.workers
        script.write_text("ready stay")
        reloads.now()
        await until(lambda: len(bench.ends) == 2 and len(bench.workers) == 2)
        assert not bench.workers & before
        assert {end.worker for end in bench.ends} == before
    assert bench.stderr.count(b"old_drained") == 2


async def test_a_reload_that_fails_keeps_the_old_process_and_the_next_one_may_succeed(script: Path) -> None:
    script.write_text("ready stay")
    reloads = Reloads()
    bench = Bench(f"follow:{script}", reloads=reloads.stream())
    async with bench.supervisor:
        before = bench.workers
        script.write_text("say:SyntaxError exit:2")
        reloads.now()
        await until(lambda: b"SyntaxError" in bench.stderr)
        assert bench.workers == before
        script.write_text("ready stay")
        reloads.now()
        await until(lambda: bool(bench.workers - before))
        await until(lambda: [end.worker for end in bench.ends] == list(before))


async def test_a_first_start_that_fails_is_mended_by_a_reload(script: Path) -> None:
    script.write_text("exit:2")
    reloads = Reloads()
    bench = Bench(f"follow:{script}", reloads=reloads.stream())
    opening = asyncio.create_task(bench.supervisor.__aenter__())
    await until(lambda: bool(bench.ends))
    script.write_text("ready stay")
    reloads.now()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await opening
    assert len(bench.workers) == 1
    await bench.supervisor.__aexit__(None, None, None)


def test_one_early_end_is_forgiven_and_more_are_answered_more_slowly() -> None:
    backoff = Backoff()
    assert [backoff.delay_after(0.1) for _ in range(5)] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert backoff.delay_after(60.0) == 0.0
    assert backoff.delay_after(0.1) == 0.0
