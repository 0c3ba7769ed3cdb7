"""Workflows in Jobs, on a real engine, with real processes behind the stand-in cluster."""

import asyncio
import signal

from tests.support.polling import eventually

from .conftest import Jobs


async def test_a_workflow_runs_to_completion_in_a_job_and_leaves_nothing(jobs: Jobs) -> None:
    await jobs.runner()
    handle = await jobs.client.start("greet", {"name": "bob"}, id="g-1")
    async with asyncio.timeout(40):
        assert await handle.result() == "hello BOB"
    await jobs.none_left()


async def test_the_role_in_the_manifest_suffices_and_nothing_in_it_is_too_much(jobs: Jobs) -> None:
    await jobs.runner()
    handle = await jobs.client.start("leaves", {"code": 3}, id="l-1")
    await jobs.losses("l-1", at_least=1)
    await handle.cancel()
    await jobs.none_left()
    assert jobs.cluster.used == jobs.cluster.rights


async def test_a_long_sleep_leaves_the_cluster_and_wakes_in_another_job(jobs: Jobs) -> None:
    await jobs.runner()
    handle = await jobs.client.start("nap", {"seconds": 4.0}, id="n-1")
    await jobs.recorded("n-1", "nap")
    await jobs.none_left()
    async with asyncio.timeout(40):
        before, after = await handle.result()
    assert before != after


async def test_many_jobs_at_once_and_none_is_lost(jobs: Jobs) -> None:
    await jobs.runner(slots=3)
    handles = [await jobs.client.start("greet", {"name": f"n{n}"}, id=f"m-{n}") for n in range(6)]
    async with asyncio.timeout(90):
        assert [await handle.result() for handle in handles] == [f"hello N{n}" for n in range(6)]
    await jobs.none_left()


async def test_a_killed_runner_finds_its_jobs_again(jobs: Jobs) -> None:
    await jobs.register()
    runner = await jobs.process()
    running = await jobs.client.start("count", {"steps": 60, "pause": 0.1}, id="c-1")
    await jobs.recorded("c-1", "step-1")
    runner.kill()
    await runner.wait()
    await jobs.process()
    async with asyncio.timeout(60):
        lives = await running.result()
    assert len(set(lives)) == 1, "the Job ran on without its runner"
    await jobs.none_left()


async def test_an_end_that_came_while_no_runner_was_there_is_told_by_the_next(jobs: Jobs) -> None:
    await jobs.register()
    runner = await jobs.process()
    await jobs.client.start("spins", {}, id="s-1")
    await jobs.recorded("s-1", "first")
    runner.kill()
    await runner.wait()
    pod = await jobs.pod("s-1")
    jobs.cluster.kubelet.kill(jobs.cluster.namespace, pod["metadata"]["name"])
    await jobs.pod("s-1", phase="Failed")
    await jobs.process()
    losses = await jobs.losses("s-1")
    assert losses[0]["reason"] in ("exited: the container was ended by SIGKILL", "worker lost")
    second = await jobs.pod("s-1")
    assert second["metadata"]["name"] != pod["metadata"]["name"]


async def test_a_job_whose_attempt_has_ended_otherwise_is_ended(jobs: Jobs) -> None:
    """Its node is cut off from NATS, say: stopped, it is lost by its lease, and ends when a runner is told so."""
    await jobs.runner()
    await jobs.client.start("count", {"steps": 300, "pause": 0.1}, id="c-2")
    await jobs.recorded("c-2", "step-1")
    pod = await jobs.pod("c-2")
    jobs.cluster.kubelet.signal(jobs.cluster.namespace, pod["metadata"]["name"], signal.SIGSTOP)
    assert (await jobs.losses("c-2"))[0]["reason"] == "worker lost"

    def is_gone() -> bool:
        return jobs.cluster.store.get("pods", jobs.cluster.namespace, pod["metadata"]["name"]) is None

    await eventually(is_gone, within=40, what="the old pod is gone")
    await jobs.recorded("c-2", "step-20")


async def test_a_cancel_ends_the_job_politely(jobs: Jobs) -> None:
    await jobs.runner()
    handle = await jobs.client.start("count", {"steps": 300, "pause": 0.1}, id="c-3")
    await jobs.recorded("c-3", "step-1")
    await handle.cancel()
    await jobs.none_left()
    assert (await handle.get()).status == "cancelled"


async def test_a_runner_that_drains_hands_its_jobs_over(jobs: Jobs) -> None:
    runner = await jobs.runner(drain_seconds=0.5)
    await jobs.client.start("count", {"steps": 600, "pause": 0.1}, id="c-4")
    await jobs.recorded("c-4", "step-1")
    await runner.__aexit__(None, None, None)
    await jobs.none_left()
    lost = await jobs.events("c-4", "AttemptLost")
    assert not lost, "it was released, not lost"
