"""Approval: a request waits for a person's decision, and is declined if none comes in time.

runtara dev examples/approval.py
runtara start approval --id trip-7 --input '{"amount": 1200, "days": 7}'
runtara signal trip-7 decision '{"approved": true, "by": "ann"}'
runtara result trip-7
"""

from dataclasses import dataclass
from datetime import timedelta

from runtara.sdk import Context, SignalTimeout, step, workflow


@dataclass
class Decision:
    approved: bool
    by: str


@step
async def ask(amount: float) -> None:
    print(f"please decide on {amount}")


@step
async def pay_out(amount: float) -> str:
    return f"paid {amount}"


@workflow
async def approval(ctx: Context, amount: float, days: float = 7) -> str:
    await ask(amount)
    try:
        decision = await ctx.wait_signal("decision", type=Decision, timeout=timedelta(days=days))
    except SignalTimeout:
        return f"declined: nobody decided within {days:g} days"
    if not decision.approved:
        return f"declined by {decision.by}"
    return f"{await pay_out(amount)}, approved by {decision.by}"
