"""The examples run as their first lines say."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.polling import eventually

from .conftest import Shell

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

pytestmark = pytest.mark.timeout(120)


def test_a_fan_out_gets_each_branch_its_own_result(shell: Shell) -> None:
    done = shell.run("run", str(EXAMPLES / "fan_out.py"), "--input", '{"cities": ["Oslo", "Quito"]}', "--json")
    assert done.returncode == 0, done.stderr
    assert '"result":["Oslo: soleado","Quito: soleado"]' in done.stdout


def test_a_script_is_an_instance_like_any_other(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "script.py"],
        cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"processing order {n}" for n in range(5)]
    (view,) = shell.lines("show", "order-batch-001")
    assert (view["status"], view["result"]) == ("completed", {"processed": 5})


@pytest.fixture(scope="module")
def web_address(shell: Shell) -> Iterator[str]:
    """Where `examples/web_app.py` listens, under uvicorn."""
    command = [sys.executable, "-m", "uvicorn", "web_app:app", "--app-dir", str(EXAMPLES), "--port", "0"]
    server = subprocess.Popen(command, cwd=shell.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert server.stderr is not None
    try:
        lines = iter(server.stderr.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture
async def web(web_address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=web_address, timeout=30) as browser:
        yield browser


async def order(web: httpx.AsyncClient, key: str, *order_ids: object) -> httpx.Response:
    return await web.post("/orders", json={"order_ids": order_ids}, headers={"Idempotency-Key": key})


async def until(web: httpx.AsyncClient, id: str, status: str) -> dict[str, Any]:
    """What the application shows of an order once it has that status."""
    view: dict[str, Any] = {}

    async def is_so() -> bool:
        nonlocal view
        view = (await web.get(f"/orders/{id}")).json()
        return bool(view["status"] == status)

    await eventually(is_so, within=20)
    return view


async def test_a_web_application_starts_an_order_once_and_shows_its_result(web: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await order(web, "w-1", "a")
        assert (answer.status_code, answer.json()) == (202, {"id": "w-1"})
    assert answer.headers["Location"] == "/orders/w-1"
    shown = await until(web, "w-1", "completed")
    assert shown == {"id": "w-1", "status": "completed", "result": ["parcel for a (receipt-a)"]}


async def test_a_web_application_cancels_an_order_that_runs(web: httpx.AsyncClient) -> None:
    assert (await order(web, "w-long", *map(str, range(20_000)))).status_code == 202
    await until(web, "w-long", "running")
    assert (await web.delete("/orders/w-long")).status_code == 202
    shown = await until(web, "w-long", "cancelled")
    assert shown["result"] is None


async def test_a_web_application_answers_errors_with_their_codes(web: httpx.AsyncClient) -> None:
    assert (await order(web, "w-2", "a")).status_code == 202
    await until(web, "w-2", "completed")
    answers = [
        await order(web, "w-2", "b"),
        await web.delete("/orders/w-2"),
        await web.get("/orders/nobody"),
        await order(web, "w-3", 17),
        await order(web, "no.id", "a"),
    ]
    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [
        (409, "StartConflict"),
        (409, "IllegalTransition"),
        (404, "InstanceNotFound"),
        (400, "InvalidInput"),
        (400, "InvalidId"),
    ]


def say(shell: Shell, *arguments: str) -> tuple[int, dict[str, Any]]:
    """What `examples/control_message.py` exits with, and what the engine answered it."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "control_message.py", *arguments],
        cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "-JOURNAL-0 has it at" in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer


def test_a_start_said_by_hand_starts_an_instance_once(shell: Shell) -> None:
    fields = json.dumps({"workflow": "orders", "input": {"order_ids": ["a"]}, "id": "hand-start"})
    assert say(shell, "start", "by-hand-1", fields) == (
        0, {"id": "hand-start", "instance": "by-hand-1", "status": "queued"}
    )  # fmt: skip
    (view,) = shell.lines("result", "by-hand-1")
    assert view["result"] == ["parcel for a (receipt-a)"]
    assert say(shell, "start", "by-hand-1", fields)[1]["status"] == "completed"
    created = [event for event in shell.lines("log", "by-hand-1") if event["type"] == "InstanceCreated"]
    assert len(created) == 1


async def test_pause_and_cancel_said_by_hand_reach_a_running_instance(shell: Shell) -> None:
    def status() -> Any:
        (view,) = shell.lines("show", "by-hand-2")
        return view["status"]

    assert say(shell, "start", "by-hand-2", '{"workflow": "endless"}')[0] == 0
    await eventually(lambda: status() == "running", within=20)
    code, answer = say(shell, "pause", "by-hand-2", '{"reason": "lunch"}')
    assert (code, answer["instance"]) == (0, "by-hand-2")
    assert say(shell, "cancel", "by-hand-2")[0] == 0
    await eventually(lambda: status() == "cancelled", within=20)
    (requested,) = [event for event in shell.lines("log", "by-hand-2") if event["type"] == "PauseRequested"]
    assert requested["data"] == {"reason": "lunch"}


def test_a_refusal_comes_to_the_inbox_too(shell: Shell) -> None:
    code, answer = say(shell, "pause", "nobody")
    assert (code, answer["error"]["code"]) == (1, "InstanceNotFound")


@pytest.fixture(scope="module")
def waiting(shell: Shell) -> Iterator[Shell]:
    """The shell, with a worker that hosts the examples of waiting."""
    targets = [str(EXAMPLES / name) for name in ("onboarding.py", "approval.py", "children.py")]
    worker = subprocess.Popen(
        [sys.executable, "-m", "runtara.cli", "worker", *targets],
        cwd=shell.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline().startswith("ready")
        yield shell
    finally:
        worker.terminate()
        worker.communicate(timeout=30)


def result_of(shell: Shell, workflow: str, input: dict[str, object]) -> Any:
    (view,) = shell.lines("start", workflow, "--input", json.dumps(input), "--wait")
    return view["result"]


def test_an_onboarding_sleeps_and_reminds_whoever_did_nothing(waiting: Shell) -> None:
    sent = result_of(waiting, "onboarding", {"email": "bob@example.com", "patience_seconds": 0.3})
    assert sent == ["Welcome!", "Your profile is still empty"]


async def test_an_onboarding_of_three_days_holds_no_process_and_takes_signals(waiting: Shell) -> None:
    waiting.run("start", "onboarding", "--id", "ada", "--input", '{"email": "ada@example.com"}')

    def is_asleep() -> bool:
        (view,) = waiting.lines("show", "ada")
        return bool(view["status"] == "sleeping" and view["wake_at"])

    await eventually(is_asleep, within=20)
    assert waiting.run("signal", "ada", "profile-completed").returncode == 0
    assert is_asleep()
    assert waiting.run("cancel", "ada").returncode == 0
    (view,) = waiting.lines("show", "ada")
    assert view["status"] == "cancelled"


def test_an_approval_is_given_or_times_out(waiting: Shell) -> None:
    assert waiting.run("start", "approval", "--id", "trip-7", "--input", '{"amount": 1200}').returncode == 0
    assert waiting.run("signal", "trip-7", "decision", '{"approved": true, "by": "ann"}').returncode == 0
    (view,) = waiting.lines("result", "trip-7")
    assert view["result"] == "paid 1200.0, approved by ann"
    late = result_of(waiting, "approval", {"amount": 1, "days": 0.000001})
    assert late == "declined: nobody decided within 1e-06 days"


def test_a_report_joins_its_children_and_shows_which_one_failed(waiting: Shell) -> None:
    found = result_of(waiting, "report", {"regions": ["north", "atlantis"]})
    assert found["north"] == 500
    assert "StepFailed" in found["atlantis"]
    assert "there is no such region" in found["atlantis"]
    views = waiting.lines("list", "--workflow", "region")
    assert sorted(view["status"] for view in views) == ["completed", "failed"]
