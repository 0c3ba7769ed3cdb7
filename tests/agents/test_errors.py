"""An agent's error survives its record, and tells the SDK's retries what to do."""

import pickle
from datetime import timedelta

import pytest

from runtara.agents import AgentError
from runtara.agents.errors import from_exception
from runtara.protocol.errors import WireError, from_wire
from runtara.sdk import Context, Permanent, Retry, RetryAfter, step, workflow
from runtara.sdk.failures import describe
from runtara.sdk.retry import Tries
from runtara.sdk.testing import assert_crash_safe

LATER = AgentError(
    "BUSY", "too many", category="transient", severity="warning", retry_after=timedelta(seconds=1.5),
    attributes={"status": 429, "code": "theirs"},
)  # fmt: skip
NEVER = AgentError("HTTP_404", "not found")


def shown(error: AgentError) -> tuple[object, ...]:
    return error.code, error.message, error.category, error.severity, error.retry_after, error.attributes, str(error)


@pytest.mark.parametrize("error", [LATER, NEVER])
def test_it_is_the_same_after_its_record_a_pickle_and_a_description(error: AgentError) -> None:
    assert shown(AgentError.from_record(error.to_record())) == shown(error)
    assert shown(pickle.loads(pickle.dumps(error))) == shown(error)
    assert shown(AgentError.from_record(describe(error).attributes)) == shown(error)


def test_its_wire_form_holds_all_of_it() -> None:
    assert LATER.to_wire().attributes == LATER.to_record()


def test_retries_wait_as_long_as_it_says_and_give_up_when_it_is_permanent() -> None:
    policy = Retry(max_attempts=2, jitter=0)
    wait, tries = policy.wait_after(LATER, Tries(1, 0))
    assert (wait, tries.made, tries.asked) == (timedelta(seconds=1.5), 1, 1)
    assert policy.wait_after(NEVER, Tries(1, 0))[0] is None
    assert policy.wait_after(AgentError("BUSY", "busy", category="transient"), Tries(1, 0))[0] == timedelta(seconds=1)


def test_a_record_that_is_not_ours_is_read_as_far_as_it_goes() -> None:
    read = AgentError.from_record({"code": "no code", "category": "?", "severity": 1, "retry_after": "x", "more": 1})
    assert shown(read)[:5] == ("AGENT_FAILED", "", "permanent", "error", None)


@pytest.mark.parametrize(
    ("error", "category", "after"),
    [
        (Permanent("no"), "permanent", None),
        (RetryAfter(3), "transient", timedelta(seconds=3)),
        (ValueError("bad"), "transient", None),
    ],
)
def test_other_exceptions_keep_their_meaning(error: Exception, category: str, after: timedelta | None) -> None:
    made = from_exception(error)
    assert (made.code, made.category, made.retry_after) == ("AGENT_FAILED", category, after)
    assert type(error).__name__ in made.message


def test_a_code_is_upper_snake() -> None:
    with pytest.raises(ValueError, match="use capitals"):
        AgentError("lower", "message")


@step(raises=(AgentError,))
async def read(path: str) -> str:
    raise AgentError("FILE_MISSING", f"no {path}", attributes={"path": path})


@workflow
async def careful(ctx: Context, path: str) -> dict[str, object]:
    try:
        return {"got": await read(path)}
    except AgentError as exc:
        return {"code": exc.code, "category": exc.category, **exc.attributes}


async def test_a_workflow_catches_it_as_itself_whatever_crashes() -> None:
    report = await assert_crash_safe(careful, path="/a")
    assert report.result == {"code": "FILE_MISSING", "category": "permanent", "path": "/a"}


def test_unknown_wire_errors_stay_readable() -> None:
    assert str(from_wire(WireError(code="AgentErrorOfTomorrow", message=str(LATER)))) == "BUSY: too many"
