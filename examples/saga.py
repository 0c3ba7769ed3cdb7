"""A trip: flight, hotel and car, or nothing. What was booked is cancelled again, the last booking first.

    runtara dev examples/saga.py
    runtara start book-trip --id trip-1 --input '{"sold_out": "car"}' --wait
    runtara log trip-1

The undo of a booking is registered before the booking is made: a process that dies in between may leave a booking that
nobody has recorded, and that must go, too. So it names the booking by a key that was known before (`reference`), and
cancelling what was never booked is no error.

`runtara start book-trip --id trip-2 --input '{"approval": true}'` waits to be approved (`runtara signal trip-2
approved`); `runtara cancel trip-2` undoes all three.

`runtara fork trip-1 --input '{}'` tries again what was undone. `runtara fork trip-2 --at book/car --id trip-3` takes
flight and hotel over from trip-2 and books another car; `runtara cancel trip-3` then cancels that car, and nothing of
trip-2's.
"""

import asyncio
from datetime import timedelta
from pathlib import Path

from runtara.sdk import Context, Permanent, Retry, step, workflow

TRIP = ("flight", "hotel", "car")
PATIENCE = Retry(max_attempts=20, initial=timedelta(seconds=0.2), max_delay=timedelta(hours=1))


class SoldOut(Permanent):
    """Another try would not help."""


@step(key="{what}", retry=Retry(max_attempts=3), raises=(SoldOut,))
async def book(what: str, ledger: str, reference: str, sold_out: str | None) -> str:
    """Stands for a call to a provider, who knows a repeated call by its `reference`."""
    if what == sold_out:
        raise SoldOut(f"there is no {what} left")
    write(ledger, f"booked {what} {reference}")
    return reference


@step(key="{what}", retry=PATIENCE)
async def cancel_booking(what: str, ledger: str, reference: str) -> None:
    """Without effect if there is no such booking. Money is at stake, so it is tried for long."""
    await asyncio.sleep(0.2)  # providers take their time
    if f"booked {what} {reference}" in read(ledger):
        write(ledger, f"cancelled {what} {reference}")


@workflow(name="book-trip")
async def book_trip(
    ctx: Context, sold_out: str | None = None, approval: bool = False, ledger: str = "bookings.log"
) -> dict[str, str]:
    """All three, or none. `ledger` is the file in which the providers keep their books."""
    bookings: dict[str, str] = {}
    for what in TRIP:
        reference = ctx.idempotency_key(what)[:8]
        await ctx.compensate(cancel_booking, what, ledger, reference)
        bookings[what] = await book(what, ledger, reference, sold_out)
    if approval:
        await ctx.wait_signal("approved", timeout=timedelta(days=7))  # without it in time everything is undone
    return bookings


def read(ledger: str) -> list[str]:
    return Path(ledger).read_text().splitlines() if Path(ledger).exists() else []


def write(ledger: str, line: str) -> None:
    """Once: a call that is repeated with the same reference finds its line."""
    if line not in read(ledger):
        with Path(ledger).open("a") as file:
            file.write(f"{line}\n")
