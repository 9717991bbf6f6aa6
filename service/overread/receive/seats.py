"""The associations that are open: whose pass each has, what it has done, and which makes way when all are taken."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from overread.domain.events import AssociationClosed, ConnectionDropped
from overread.ports import Herald
from overread.receive.admission import Knock, Pass, Refusal
from overread.receive.upper_layer.server import let_go, silent_s

IDLE_NEWCOMER_S = 0.5  # of one that has not stored anything yet …
IDLE_S = 30.0  # … and of one that has


class Gate(Protocol):
    """Who decides; ``Admission`` here, or a line to the process that has it."""

    def enter(self, knock: Knock) -> Pass | Refusal: ...

    def leave(self, pass_id: int) -> None: ...

    def spend(self, pass_id: int, size_bytes: int) -> bool: ...


class Receives(Protocol):
    """One data set as it comes."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> None: ...

    def finish(self) -> tuple[int, str]: ...

    def abandon(self) -> None: ...


@dataclass(eq=False)
class Seat:
    """One association's. ``busy``: it waits for us, not we for it. ``spent``: its peer has had its bytes for today."""

    admitted: Pass
    calling_ae: str
    called_ae: str
    address: str
    established: bool = False
    stored: int = 0
    busy: bool = False
    spent: bool = False


class Seats:
    """Keeps count of associations. Safe to use from many threads."""

    def __init__(self, gate: Gate, herald: Herald) -> None:
        self._gate, self._herald = gate, herald
        self._taken: dict[Any, Seat] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._taken)

    def sit(self, association: Any, seat: Seat) -> None:
        """An association begins."""
        with self._lock:
            self._taken[association] = seat

    def establish(self, association: Any) -> Seat | None:
        """It is established; its seat, None when it has been given up meanwhile."""
        # Whoever ends it must see that it was established: else it is told as opened, and never as closed.
        with self._lock:
            seat = self._taken.get(association)
            if seat is not None:
                seat.established = True
            return seat

    def of(self, association: Any) -> Seat | None:
        """Its seat; None when it has been given up."""
        return self._taken.get(association)

    def rise(self, association: Any) -> None:
        """It has ended; more than once does no harm."""
        with self._lock:
            seat = self._taken.pop(association, None)
        if seat is not None:
            self._gate.leave(seat.admitted.id)
            if seat.established:
                self._herald(AssociationClosed(seat.calling_ae))

    def watch(self, seat: Seat, reception: Receives) -> Watched:
        """Count what a reception takes for the seat."""
        return Watched(self._gate, seat, reception)

    def unwanted(self, seat: Seat) -> str:
        """Why nothing is taken from it at the moment; empty when all is well."""
        if seat.spent and not self._gate.spend(seat.admitted.id, 0):
            return "more than this sender may store in a day"
        seat.spent = False
        return ""

    def sweep(self) -> None:
        """Give back the passes of those that have ended unannounced, as pynetdicom lets some do."""
        with self._lock:
            ended = [a for a in self._taken if not a.is_alive()]
        for association in ended:
            self.rise(association)

    def make_way(self, peer: str) -> bool:
        """End the association, of ``peer`` if named, that was idle longest; False when none was for long enough."""
        with self._lock:
            candidates = [
                (silent_s(a), a, seat)
                for a, seat in self._taken.items()
                if seat.established and not seat.busy and (not peer or seat.admitted.peer == peer)
            ]
        idle = [(s, a, seat) for s, a, seat in candidates if s > (IDLE_S if seat.stored else IDLE_NEWCOMER_S)]
        if not idle:
            return False
        _, association, seat = max(idle, key=lambda one: one[0])
        self._herald(ConnectionDropped(seat.address, "idle"))
        self.rise(association)
        let_go(association)
        return True


class Watched:
    """A reception that counts for its seat."""

    def __init__(self, gate: Gate, seat: Seat, reception: Receives) -> None:
        self._gate, self._seat, self._reception, self._size = gate, seat, reception, 0
        self.abandon = reception.abandon

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """As the reception does."""
        self._seat.busy = True
        if self._seat.admitted.metered:
            self._size += sum(map(len, pieces))
        self._reception.write(pieces)
        self._seat.busy = False

    def finish(self) -> tuple[int, str]:
        """As the reception does."""
        seat = self._seat
        seat.busy = True
        try:
            status, comment = self._reception.finish()
        finally:
            seat.busy = False
        seat.stored += 1
        if seat.admitted.metered and status == 0:
            seat.spent = not self._gate.spend(seat.admitted.id, self._size)
        return status, comment
