"""effects(state): what is owed to the queue, the worker and the clock."""

import msgspec

from runtara.engine.lifecycle import State, effects
from runtara.protocol.records import Unparked
from tests.lifecycle.life import Life


def test_a_queued_instance_is_owed_a_run_request() -> None:
    life = Life()
    life.start()
    owed = effects(life.state)
    assert owed.run_request is not None
    assert (owed.run_request.attempt, owed.run_request.since) == (1, 2)
    assert (owed.purge, owed.control, owed.lease) == (None, None, None)


def test_a_running_instance_is_owed_a_lease_and_nothing_else() -> None:
    owed = effects(Life().running().state)
    assert (owed.run_request, owed.purge, owed.control, owed.lease) == (None, None, None, "w1")


def test_a_request_that_must_not_run_is_purged() -> None:
    life = Life()
    life.start()
    life.pause()
    assert effects(life.state).purge == 1
    life.resume()
    assert effects(life.state).purge is None
    life.cancel()
    assert effects(life.state).purge == 2


def test_a_pause_is_told_until_it_is_obeyed_or_taken_back() -> None:
    life = Life().running()
    life.pause()
    control = effects(life.state).control
    assert control is not None
    assert (control.pause, control.resume, control.nonce) == (True, False, "n1")
    life.resume()
    control = effects(life.state).control
    assert control is not None
    assert (control.pause, control.resume) == (False, True)
    life.step("a")
    assert effects(life.state).control is None


def test_a_cancel_is_told_until_the_claim_ends() -> None:
    life = Life().running()
    life.compensate("u")
    life.cancel("enough")
    control = effects(life.state).control
    assert control is not None
    assert (control.cancel, control.reason) == (True, "enough")
    life.lose()
    life.claim("n2")
    assert effects(life.state).control is None  # its claim was told


def test_outcomes_after_the_claim_are_told() -> None:
    life = Life().running()
    life.wait("w")
    life.sleep("s")
    life.fail_step("a", for_us=1)
    life.signal()
    told = life.state.version
    control = effects(life.state).control
    assert control is not None
    assert control.resolved == (("w", told),)
    life.report(Unparked, key="w")
    assert effects(life.state).control is None
    life.fire()
    life.fire()
    life.lose()
    life.claim("n2")
    assert effects(life.state).control is None


def test_what_is_told_again_and_again_is_bounded() -> None:
    life = Life().running()
    for n in range(100):
        life.sleep(f"s{n}", 0)
    control = effects(life.state).control
    assert control is not None
    assert len(control.resolved) == 64
    assert control.resolved[-1][0] == "s99"


def test_effects_survive_the_database() -> None:
    life = Life().running()
    life.sleep("s")
    life.wait("w", seconds=5)
    life.signal()
    life.pause()
    read = msgspec.json.decode(msgspec.json.encode(life.state), type=State)
    assert effects(read) == effects(life.state)
