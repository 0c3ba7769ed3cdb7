"""An agent for tests, with a capability of each shape."""

import asyncio
import threading
from typing import Any, Literal

from pydantic import Field, JsonValue

from runtara.agents import AgentError, Data, Inputs, Outputs, agent, capability, read_text
from runtara.agents.connections import HttpBasic, HttpBearer
from runtara.sdk import Permanent, RetryAfter


class Weigh(Inputs):
    grams: int = Field(description="What it weighs.", examples=[250])
    label: str = "parcel"
    fragile: bool = False
    kind: Literal["letter", "box"] = "box"
    factor: float = 1.0
    note: str | None = None
    content: Data = ""


class Weight(Outputs):
    kilograms: float
    label: str
    thread: str


class Anything(Inputs):
    value: Any
    maybe: JsonValue = None
    nullable: int | None = Field(default=None)
    must_be_told: str | None


class Fail(Inputs):
    how: str


@agent("parcels", display_name="Parcels", side_effects=True, connections=("http_bearer", "http_basic"))
class Parcels:
    """Weighs and sends parcels."""

    @capability("weigh", aliases=("weight",), side_effects=False, idempotent=True, inline=True)
    def weigh(self, inputs: Weigh) -> Weight:
        """Says what a parcel weighs.

        In kilograms.
        """
        return Weight(
            kilograms=inputs.grams * inputs.factor / 1000, label=inputs.label, thread=threading.current_thread().name
        )

    @capability("weigh-in-a-thread", side_effects=False)
    def weigh_in_a_thread(self, inputs: Weigh) -> Weight:
        """Weighs elsewhere."""
        return self.weigh(inputs)

    @capability("read", side_effects=False)
    async def read(self, inputs: Weigh) -> str:
        """Gives the text of its content."""
        return read_text(inputs.content, base64_text=True)

    @capability("send", rate_limited=True, errors=("PARCEL_LOST",))
    async def send(self, inputs: Weigh, connection: HttpBearer | HttpBasic) -> dict[str, str]:
        """Sends it, or says what it was sent with."""
        secret = next(connection.secrets())
        if inputs.label == "lose":
            raise AgentError("PARCEL_LOST", f"lost on {secret}", attributes={"with": secret, "at": 1})
        if inputs.label == "crash":
            raise RuntimeError(f"cannot reach https://example.org/?token={secret}")
        return {"sent": type(connection).__name__}

    @capability("ask", side_effects=False)
    async def ask(self, inputs: Weigh, connection: HttpBearer | None = None) -> str:
        """Works with and without a connection."""
        return "with" if connection else "without"

    @capability("return", side_effects=False, inline=True)
    def give_back(self, inputs: Anything) -> Any:
        """Gives back what it was given."""
        return inputs.value

    @capability("fail")
    async def fail(self, inputs: Fail) -> None:
        """Fails in many ways."""
        match inputs.how:
            case "permanent":
                raise Permanent("no")
            case "later":
                raise RetryAfter(7)
            case "timeout":
                raise TimeoutError("the other side")
            case "hang":
                await asyncio.Event().wait()
            case _:
                raise KeyError(inputs.how)
