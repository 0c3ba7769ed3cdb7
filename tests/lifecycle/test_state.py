"""State: what is kept of an instance, and how it survives the database."""

import msgspec
from msgspec.structs import replace

from runtara.engine.lifecycle import KeySet, State, needs_keys, recorded_keys, with_keys
from tests.lifecycle.life import SECOND, Life


def test_it_is_the_same_after_a_trip_through_json_but_for_the_keys() -> None:
    life = Life().running()
    life.step("a")
    life.sleep("s")
    life.wait("w", seconds=3)
    life.wait("v", "other")
    life.call("c")
    life.compensate("u")
    life.fail_step("f", for_us=SECOND)
    life.signal("early", '{"x":1}')
    life.signal("other", "2")
    life.pause()
    read = msgspec.json.decode(msgspec.json.encode(life.state), type=State)
    assert replace(read, keys=life.state.keys) == life.state
    assert needs_keys(read)
    full = with_keys(read, recorded_keys(read, life.log))
    assert full == life.state
    assert not needs_keys(full)


def test_a_small_instance_is_a_small_row() -> None:
    life = Life().running()
    life.step("a")
    assert len(msgspec.json.encode(life.state)) < 400


def test_what_has_ended_needs_no_keys_until_it_is_retried() -> None:
    life = Life().running()
    life.complete()
    assert not needs_keys(life.state)
    assert life.state.keys == KeySet()


def test_a_new_instance_knows_all_its_keys() -> None:
    life = Life()
    life.start()
    assert life.state.keys.complete
