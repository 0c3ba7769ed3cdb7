"""Child workflows: asked for once, waited for as often as the code likes.

Invariants: a child is started by the engine alone, from the record that asks for it, so an attempt that lost its claim
starts nothing; a call by the same key (which is made of the input unless given) is the same child in every attempt; its
end is told once and stays. Code that no longer waits for a child gives nothing up: the child runs on. A parent ends
after the children that it is to wait for: that is kept here, the engine knows only whether to cancel them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal

import orjson
from msgspec.structs import replace

from runtara.protocol.errors import ChildCancelled, ChildFailed, KeyMismatch, RuntaraError, WireError
from runtara.protocol.events import ChildRequested
from runtara.protocol.ids import check_id, child_id
from runtara.protocol.records import ChildRequest

from .failures import TRACEBACK
from .keys import input_fingerprint, long_part
from .memos import Memos, Waited
from .parks import Parks
from .starts import Startable, checked_labels, named_input
from .waits import Waits

OnEnd = Literal["cancel", "leave", "wait"]
"""What becomes of a child when its parent ends before it. `wait`: the parent waits for it, and then ends. A parent that
is cancelled cancels its children, but for those to be left."""

_OPTIONS: Final = ("key", "id", "on_end", "labels")


class Request:
    """A child that was asked for: under `key`, as instance `id`."""

    __slots__ = ("decode", "id", "key", "release")

    def __init__(self, key: str, release: str, id: str, decode: Callable[[bytes], Any]) -> None:
        self.key = key
        self.release = release
        self.id = id
        self.decode = decode


class Children:
    """The children of one attempt. `generation`: how often the instance was retried or continued."""

    def __init__(self, waits: Waits, memos: Memos, parks: Parks, *, instance: str, generation: int) -> None:
        self._waits = waits
        self._memos = memos
        self._parks = parks
        self._instance = instance
        self._generation = generation
        self._to_wait_for: list[str] = []

    async def request(
        self, workflow: Startable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Request:
        """Ask for a child, unless that was done."""
        key, id, on_end, labels = (kwargs.pop(name, None) for name in _OPTIONS)
        if on_end not in (None, "cancel", "leave", "wait"):
            raise TypeError(f"on_end takes 'cancel', 'leave' or 'wait', not {on_end!r}")
        labels = checked_labels(labels)
        version = kwargs.pop("version", None) if isinstance(workflow, str) else None
        name, input = named_input(workflow, args, kwargs)
        decode = orjson.loads if isinstance(workflow, str) else workflow.decode_result
        digest = ""
        if key is None:
            fingerprint = input_fingerprint(orjson.loads(bytes(input)))
            key = release = await self._waits.automatic_key(f"child~{name}", fingerprint)
            digest = long_part(fingerprint)
        else:
            key, release = await self._waits.key(key, name)
        if on_end == "wait":
            self._to_wait_for.append(key)
        known = self._known(key, name)
        if known is None:
            known = self._id(key) if id is None else check_id(id, "instance")
            policy: Literal["cancel", "leave"] = "leave" if on_end == "leave" else "cancel"
            asked = ChildRequest(
                workflow=name, instance=id, input=input, labels=labels, on_end=policy, version=version
            )  # fmt: skip
            await self._ask(Request(key, release, known, decode), asked, digest)
        return Request(key, release, known, decode)

    async def _ask(self, request: Request, asked: ChildRequest, digest: str) -> None:
        await self._waits.begins()
        try:
            input = await self._waits.blobs.carried(asked.input, key=request.key)
            if input.blob is not None:
                asked = replace(asked, input=input.text, blob=input.blob, digest=digest)
            await self._waits.say(self._waits.parked(request.key, kind="child", child=asked), child=request.id)
        except asyncio.CancelledError:
            self._waits.keys.release(request.release)  # it is on its way: the same call again gets the same child
            raise

    async def result(self, request: Request) -> Any:
        """Wait for its end. Raises `ChildFailed`, `ChildCancelled`."""
        outcome = await self._outcome(request.key)
        if outcome.error is not None:
            raise child_error(request.key, request.id, outcome.error)
        return request.decode(await self._waits.text(outcome, request.key))

    async def call(self, workflow: Startable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = await self.request(workflow, args, kwargs)
        try:
            return await self.result(request)
        except asyncio.CancelledError:
            self._waits.keys.release(request.release)  # the same call again gets the same child
            raise

    async def join(self) -> None:
        """Until the children have ended that are to be waited for."""
        for key in self._to_wait_for:
            await self._outcome(key)

    def _known(self, key: str, workflow: str) -> str | None:
        """The id of the child that was asked for under `key`."""
        opened = self._memos.opened(key)
        if opened is None and self._memos.answer(key) is None:
            return None
        if not isinstance(opened, ChildRequested) or opened.request.workflow != workflow:
            raise KeyMismatch(key=key, reason=f"it was not recorded by a child of workflow {workflow!r}")
        return opened.child

    def _id(self, key: str) -> str:
        """As the engine derives it."""
        return child_id(self._instance, f"{key}\n{self._generation}" if self._generation else key)

    async def _outcome(self, key: str) -> Waited:
        await self._waits.passing()
        known = self._memos.answer(key)
        if isinstance(known, Waited):
            return known
        await self._waits.begins()
        return await self._parks.outcome(key)


def child_error(key: str, instance: str, error: WireError) -> RuntaraError:
    """What the parent sees of a child that did not complete, or that could not be started.

    Of a chain of children that failed because of each other, the text names this one and the one where it began.
    """
    if error.code == ChildCancelled.__name__ and error.attributes.get("instance") == instance:
        return ChildCancelled(key=key, instance=instance)
    details = {name: value for name, value in error.attributes.items() if name != TRACEBACK}
    began_below = error.code == error.attributes.get("type") == ChildFailed.__name__
    message = str(error.attributes.get("message", "")) if began_below else error.message
    return ChildFailed(key=key, instance=instance, type=error.code, message=message, details=details)
