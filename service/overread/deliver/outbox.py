"""The outbox: what the ledger says is due at one destination is sent, then proven, then marked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from overread.deliver.patience import gives_up, next_try
from overread.domain.errors import Rejected, Unreachable
from overread.domain.events import DeliveryTried, JobMoved, ResultArrived
from overread.domain.job import JobState
from overread.domain.result import DeliveryState
from overread.ledger import Ledger, deliveries
from overread.ledger.deliveries import Parcel
from overread.ports import Destination, Herald


@dataclass(frozen=True)
class Patience:
    """Seconds: the first wait after a failed try, the longest, and after how long a delivery is given up."""

    first_s: float
    longest_s: float
    give_up_after_s: float


class Outbox:
    """One destination's queue. ``absolute`` turns a result's path into the file behind it."""

    def __init__(
        self,
        ledger: Ledger,
        destination: Destination,
        patience: Patience,
        absolute: Callable[[str], Path],
        herald: Herald,
    ) -> None:
        self._ledger, self._destination, self._patience = ledger, destination, patience
        self._absolute, self._herald = absolute, herald
        self._rng = Random()

    def work(self) -> int:
        """Try everything that is due once; returns how many parcels were proven.

        A destination that cannot be reached ends the round: the parcels behind would only wait for the same time-out.
        """
        proven = 0
        for parcel in deliveries.due(self._ledger, self._destination.name, time.time()):
            started = time.monotonic()
            try:
                outcome = self._try(parcel)
            except Unreachable as error:
                self._later(parcel, DeliveryState.PENDING, str(error))
                self._tell(parcel, "unreachable", started)
                return proven
            except Rejected as error:
                deliveries.mark(self._ledger, parcel, DeliveryState.FAILED, reason=str(error), tried=True)
                outcome = "rejected"
            self._tell(parcel, outcome, started)
            proven += outcome == "verified"
            if outcome == "sent":
                return proven
        return proven

    def _try(self, parcel: Parcel) -> str:
        if not parcel.sent:
            self._destination.send([(r, self._absolute(r.path)) for r in parcel.results])
            if not deliveries.mark(self._ledger, parcel, DeliveryState.SENT, tried=True):
                return "sent"
        try:
            proven = self._destination.prove(parcel.results)
        except Unreachable as error:
            # It was taken, only the question failed: nothing needs to be sent again.
            self._later(parcel, DeliveryState.SENT, str(error))
            return "sent"
        if proven:
            deliveries.mark(self._ledger, parcel, DeliveryState.VERIFIED)
            return "verified"
        # Taken, but not found: the same objects with the same UIDs go again, which can double nothing.
        self._later(parcel, DeliveryState.PENDING, "it was taken but is not found there")
        return "unproven"

    def _later(self, parcel: Parcel, state: DeliveryState, reason: str) -> None:
        now = time.time()
        if gives_up(now - parcel.created_at, self._patience.give_up_after_s):
            deliveries.mark(self._ledger, parcel, DeliveryState.FAILED, reason=reason, tried=True)
            return
        wait = next_try(parcel.attempts + 1, self._patience.first_s, self._patience.longest_s, self._rng)
        deliveries.mark(self._ledger, parcel, state, reason=reason, not_before=now + wait, tried=True)

    def _tell(self, parcel: Parcel, outcome: str, started: float) -> None:
        seconds = time.monotonic() - started
        for result in parcel.results:
            self._herald(DeliveryTried(parcel.destination, result.kind, outcome, seconds))
        if outcome == "verified":
            self._herald(ResultArrived(parcel.model, deliveries.latency_s(parcel, time.time())))


def settle(ledger: Ledger, herald: Herald) -> None:
    """End the jobs whose deliveries have all ended."""
    for moved in deliveries.settle(ledger):
        why = "proven at every destination" if moved.after is JobState.COMPLETED else "a destination refused"
        herald(JobMoved(moved.job.id, moved.job.model, moved.job.study_uid, moved.before, moved.after, why))
