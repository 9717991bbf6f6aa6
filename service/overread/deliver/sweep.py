"""The nightly sweep: is what a destination has proven in the last days still there? What is not goes again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from overread.deliver.round import AT_ONCE, Round
from overread.domain.delivery import Standing
from overread.domain.errors import Rejected, Unreachable
from overread.domain.events import DeliveriesLost
from overread.ledger import Ledger, destinations, letters
from overread.ledger.deliveries import Delivery
from overread.ports import Herald

NIGHT = range(0, 5)  # hours of the local day
DAY_S = 86_400.0
NOT_BEFORE_S, AT_LATEST_S = 20 * 3600.0, 36 * 3600.0


@dataclass(frozen=True)
class Swept:
    """How many were asked for, how many of them are there, and how many go again."""

    asked: int = 0
    there: int = 0
    lost: int = 0


@dataclass
class Sweep:
    """Asks one destination for what it has proven within the last ``days``."""

    ledger: Ledger
    round: Round
    days: float
    herald: Herald

    @property
    def name(self) -> str:
        return self.round.destination.name

    def if_due(self, now: Callable[[], float] = time.time) -> Swept | None:
        """Sweep once a night, or by day when the last night was missed; None when it is not the time."""
        at = now()
        night = datetime.fromtimestamp(at).hour in NIGHT
        before = at - (NOT_BEFORE_S if night else AT_LATEST_S)
        last = destinations.stand(self.ledger, self.name).swept_at
        if self.days <= 0 or last >= before or not (night or last):
            return None
        if not destinations.take_sweep(self.ledger, self.name, at, before):
            return None
        try:
            return self.now(at)
        except (Unreachable, Rejected):
            destinations.sweep_again(self.ledger, self.name)
            raise

    def now(self, at: float) -> Swept:
        """Sweep. Raises Unreachable, or Rejected, when it cannot be asked; what was found until then counts."""
        try:
            return self._all(at)
        finally:
            close = getattr(self.round.destination, "close", None)
            if close is not None:
                close()

    def _all(self, at: float) -> Swept:
        swept, after = Swept(), 0
        while found := letters.verified_since(self.ledger, self.name, at - self.days * DAY_S, after, AT_ONCE):
            after = found[-1].id
            part = self._page([d for d in found if self.round.absolute(d.result.path).exists()])
            swept = Swept(swept.asked + part.asked, swept.there + part.there, swept.lost + part.lost)
        return swept

    def _page(self, found: list[Delivery]) -> Swept:
        ids = {d.result.sop_instance_uid: d.id for d in found}
        lost: dict[str, list[int]] = {}
        awaited: dict[str, list[int]] = {}
        there = 0
        for item, proven in self.round.destination.prove([self.round.item(d) for d in found]) if found else ():
            which = ids[item.result.sop_instance_uid]
            if proven.standing in (Standing.MISSING, Standing.ALTERED):
                lost.setdefault(proven.reason, []).append(which)
            elif proven.standing is Standing.AWAITED:
                awaited.setdefault(proven.transaction_uid, []).append(which)
            else:
                there += 1
        for uid, which_ones in awaited.items():
            letters.expect(self.ledger, which_ones, uid)
        count = sum(
            letters.lost(self.ledger, which_ones, f"it had been proven, but now: {reason}; it is sent again")
            for reason, which_ones in lost.items()
        )
        if count:
            self.herald(DeliveriesLost(self.name, count))
        return Swept(len(found), there, count)
