"""Logs: fields, formats, and what happens in an application that configures its own."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtara.infra import logs
from runtara.infra.settings import LogFormat


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, given back as it was."""
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


@pytest.mark.usefixtures("root_logger")
def test_a_line_is_a_json_document_with_the_fields_that_were_bound() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.logger("engine", partition=3).info("partition_taken", owner="x", of=object, message="not the event")
    logging.getLogger("nats").warning("slow %s", "consumer")
    logging.getLogger("nats").info("not ours, not important")
    logs.logger("engine").debug("below the level")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "partition_taken"
    assert first["level"] == "info"
    assert first["logger"] == "runtara.engine"
    assert (first["partition"], first["owner"], first["of"]) == (3, "x", "<class 'object'>")
    assert first["at"].endswith("Z")
    assert second["event"] == "slow consumer"


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_written_with_its_traceback(log_format: LogFormat) -> None:
    stream = io.StringIO()
    logs.configure("debug", log_format, stream=stream)
    try:
        raise ValueError("boom")
    except ValueError:
        logs.logger("engine").exception("loop_failed", partition=1)
    assert "loop_failed" in stream.getvalue()
    assert "ValueError: boom" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


@pytest.mark.usefixtures("root_logger")
def test_configuring_twice_does_not_write_twice() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.configure(stream=stream)
    logs.logger("x").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_in_an_application_the_event_is_an_ordinary_line(caplog: pytest.LogCaptureFixture) -> None:
    logs.logger("worker", worker="w1").warning("claim_lost", name="a name", args=1)
    assert caplog.messages == ["claim_lost worker=w1 name=a name args=1"]
    assert caplog.records[0].name == "runtara.worker"


def test_unconfigured_nothing_goes_to_stdout() -> None:
    code = "from runtara.infra import logs; log = logs.logger('x'); log.debug('a'); log.info('b'); log.warning('c')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "c\n"
