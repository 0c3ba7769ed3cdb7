"""An agent for tests of JSON workflows: one capability of each kind that a validator tells apart."""

from typing import Literal

from pydantic import Field

from runtara.agents import AgentError, Inputs, Outputs, agent, capability
from runtara.agents.connections import HttpBearer
from runtara.agents.registry import Registry


class Order(Inputs):
    sku: str = Field(description="What is ordered.")
    amount: int = 1
    size: Literal["small", "large"] = "small"
    note: str | None = None


class Receipt(Outputs):
    id: str
    lines: list[Order]
    total: float


@agent("shop", connections=("http_bearer",))
class Shop:
    """Takes orders."""

    @capability("order", aliases=("buy",), inline=True)
    def order(self, inputs: Order) -> Receipt:
        """Order something."""
        return Receipt(id=f"r-{inputs.sku}", lines=[inputs], total=inputs.amount * 1.5)

    @capability("pay", inline=True)
    def pay(self, inputs: Order, connection: HttpBearer) -> Receipt:
        """Pay for it."""
        return Receipt(id=f"p-{inputs.sku}", lines=[], total=0)

    @capability("refuse", errors=("SOLD_OUT",), inline=True)
    def refuse(self, inputs: Order) -> Receipt:
        """Fail for good."""
        raise AgentError("SOLD_OUT", f"there is no {inputs.sku!r}", attributes={"sku": inputs.sku})

    @capability("stumble", errors=("BUSY",), inline=True)
    def stumble(self, inputs: Order) -> Receipt:
        """Fail in a way that is worth another try."""
        raise AgentError("BUSY", "try again", category="transient")


def shop_registry() -> Registry:
    return Registry([("shop", f"{__name__}:Shop")])
