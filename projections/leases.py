"""Leases: which workers host instances, how long we have heard nothing from them, and what their lists lack.

Ages count *listening* seconds: they grow by one for each second in which we could have heard a worker, so troubles
of our own (a restart, a blocked loop, a lost connection) never count against healthy workers.

Invariants: a worker has a lease as long as an instance is resident at it; a word from it, of whatever kind, sets its
age to zero; an instance is missing only after two lists that were made after its claim lack it.
"""

from typing import Final

import msgspec

from runtara.protocol.limits import LEASE_SECONDS

WorkerId = tuple[str, str]  # tenant, worker
LISTS_UNTIL_ABSENT: Final = 2


class Resident(msgspec.Struct):
    """An instance in a worker's hands. `since`: when we learned of the claim (local monotonic seconds)."""

    instance: str
    attempt: int
    nonce: str
    since: float
    missed_lists: int = 0


class Leases:
    def __init__(self) -> None:
        self._ages: dict[WorkerId, int] = {}
        self._residents: dict[WorkerId, dict[str, Resident]] = {}

    def __len__(self) -> int:
        return len(self._residents)

    def clear(self) -> None:
        self._ages.clear()
        self._residents.clear()

    def reset_ages(self) -> None:
        """We could not hear anybody: everyone starts anew."""
        for worker in self._ages:
            self._ages[worker] = 0

    def claimed(self, worker: WorkerId, resident: Resident) -> None:
        self._residents.setdefault(worker, {})[resident.instance] = resident
        self._ages.setdefault(worker, 0)

    def ended(self, worker: WorkerId, instance: str, attempt: int) -> None:
        residents = self._residents.get(worker)
        if residents is None:
            return
        resident = residents.get(instance)
        if resident is not None and resident.attempt == attempt:
            del residents[instance]
        if not residents:
            del self._residents[worker]
            self._ages.pop(worker, None)

    def heard(self, worker: WorkerId) -> None:
        if worker in self._ages:
            self._ages[worker] = 0

    def residents(self, worker: WorkerId) -> list[Resident]:
        return list(self._residents.get(worker, {}).values())

    def tick(self) -> list[tuple[WorkerId, list[Resident]]]:
        """One listening second has passed: the workers whose lease is over, with what they hosted."""
        lost = []
        for worker in self._ages:
            self._ages[worker] += 1
            if self._ages[worker] >= LEASE_SECONDS:
                lost.append((worker, self.residents(worker)))
        return lost

    def listed(self, worker: WorkerId, hosted: set[tuple[str, int]], made_at: float) -> list[Resident]:
        """A worker said what it hosts (at local time `made_at`): the residents it lacks for the second time."""
        absent = []
        for resident in self._residents.get(worker, {}).values():
            if (resident.instance, resident.attempt) in hosted:
                resident.missed_lists = 0
            elif resident.since < made_at:
                resident.missed_lists += 1
                if resident.missed_lists >= LISTS_UNTIL_ABSENT:
                    absent.append(resident)
        return absent
