"""What an instance's events have other instances do."""

from runtara.engine.lifecycle import evolve, outbox_commands
from runtara.protocol.ids import is_id
from runtara.protocol.records import Cancel, ChildDone, Continued, Failed, Parent, Record, Start
from tests.lifecycle.life import ENGINE, ERROR, INSTANCE, TENANT, Life, raw


def posts(life: Life, act: object) -> list[Record]:
    """The commands of what `act` has decided."""
    before, known = life.state_or_none, len(life.log)
    act()  # type: ignore[operator]
    made: list[Record] = []
    for _, event in life.log[known:]:
        after = evolve(before, event)
        made += outbox_commands(before, event, after, TENANT, INSTANCE)
        before = after
    return made


def child_of(parent: str) -> Life:
    life = Life()
    life.tell(
        Start(id="o", instance=INSTANCE, tenant=TENANT, workflow="w", parent=Parent(instance=parent, key="k")), ENGINE
    )
    life.claim()
    return life


def test_a_child_is_started_for_the_wait_of_its_parent() -> None:
    life = Life().running()
    (start,) = posts(life, lambda: life.call("c"))
    assert isinstance(start, Start)
    assert (start.tenant, start.workflow) == (TENANT, "audit")
    assert start.instance == life.state.children["c"].instance
    assert start.parent == Parent(instance=INSTANCE, key="c")
    assert is_id(start.id)


def test_asking_again_starts_nothing() -> None:
    life = Life().running()
    life.call("c")
    assert posts(life, lambda: life.call("c")) == []


def test_ids_come_from_their_cause() -> None:
    first, second = Life().running(), Life().running()
    assert posts(first, lambda: first.call("c")) == posts(second, lambda: second.call("c"))


def test_a_parent_is_told_of_each_end() -> None:
    for act, status in ((Life.complete, "completed"), (fail, "failed"), (cancel_now, "cancelled")):
        life = child_of("p")
        told = posts(life, lambda act=act, life=life: act(life))[-1]
        assert isinstance(told, ChildDone)
        assert (told.instance, told.key, told.child, told.status) == ("p", "k", INSTANCE, status)
        assert told.tenant == TENANT


def fail(life: Life) -> None:
    life.report(Failed, error=ERROR)


def cancel_now(life: Life) -> None:
    life.cancel()
    life.lose()


def test_open_children_are_cancelled_with_their_parent_unless_they_are_left() -> None:
    life = Life().running()
    life.call("c")
    life.call("d", on_end="leave")
    life.call("e")
    life.child_done("e")
    child = life.state.children["c"].instance
    commands = posts(life, life.complete)
    assert [(type(c), c.instance) for c in commands] == [(Cancel, child)]


def test_the_children_of_a_generation_end_with_it() -> None:
    life = Life().running()
    life.call("c")
    (cancel,) = posts(life, lambda: life.report(Continued, input=raw("{}")))
    assert isinstance(cancel, Cancel)


def test_most_events_concern_nobody_else() -> None:
    life = Life().running()
    assert posts(life, lambda: life.step("a")) == []
