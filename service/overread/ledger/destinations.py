"""How destinations stand: a circuit breaker for each, kept where every process and the command line can see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session, col, select

from overread.domain.result import OPEN_STATES, DeliveryState
from overread.ledger.store import Ledger
from overread.ledger.tables import DeliveryRow, DestinationRow

CLOSED, OPEN = "CLOSED", "OPEN"
UNREACHABLE = "unreachable"  # the cause of deliveries that wait for their destination and not for themselves
AT_ONCE = 500


@dataclass(frozen=True)
class Stand:
    """A destination's circuit breaker. OPEN: nothing is sent but a probe at ``probe_at``; ``failures`` in a row."""

    name: str
    state: str = CLOSED
    failures: int = 0
    since: float = 0.0
    probe_at: float = 0.0
    reason: str = ""
    swept_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.state == OPEN


def stand(ledger: Ledger, name: str) -> Stand:
    """How a destination stands; closed when nothing is known of it."""
    with ledger.read() as session:
        row = session.get(DestinationRow, name)
        return Stand(name) if row is None else _as_stand(row)


def stands(ledger: Ledger) -> list[Stand]:
    """All that are known, by name."""
    with ledger.read() as session:
        return [_as_stand(row) for row in session.exec(select(DestinationRow).order_by(col(DestinationRow.name))).all()]


def failed(ledger: Ledger, name: str, reason: str, now: float, *, opens_after: int, probe_at: float) -> bool:
    """A connection failed; the breaker opens at the ``opens_after``-th in a row. True when this was the one."""
    with ledger.write() as session:
        row = _row(session, name)
        row.failures += 1
        row.reason = reason
        opens = row.state != OPEN and row.failures >= opens_after
        if opens:
            row.state, row.since = OPEN, now
        row.probe_at = probe_at
        return opens


def answered(ledger: Ledger, name: str, now: float, *, took: bool) -> bool:
    """It answers: the breaker closes, and what waited for it is due. True when it was open.

    Only when it also ``took`` or proved something are its failures forgotten: one that greets and takes nothing opens
    again at its next failure, and is asked less and less often.
    """
    with ledger.write() as session:
        row = _row(session, name)
        was_open = row.state == OPEN
        row.state, row.reason = CLOSED, ""
        row.failures = 0 if took else row.failures
        if was_open:
            row.since = now
        waiting = (
            col(DeliveryRow.destination) == name,
            col(DeliveryRow.cause) == UNREACHABLE,
            col(DeliveryRow.state).in_(OPEN_STATES),
        )
        session.exec(update(DeliveryRow).where(*waiting).values(not_before=now))
        return was_open


def take_probe(ledger: Ledger, name: str, now: float, hold_s: float) -> bool:
    """Whether the caller is the one that probes now; nobody else does for ``hold_s`` seconds."""
    with ledger.write() as session:
        r = DestinationRow
        due = (col(r.name) == name, col(r.state) == OPEN, col(r.probe_at) <= now)
        return bool(session.exec(update(DestinationRow).where(*due).values(probe_at=now + hold_s)).rowcount)


def take_sweep(ledger: Ledger, name: str, now: float, before: float) -> bool:
    """Whether the caller is the one that sweeps now: the last sweep began before ``before``."""
    with ledger.write() as session:
        row = _row(session, name)
        if row.swept_at >= before:
            return False
        row.swept_at = now
        return True


def sweep_again(ledger: Ledger, name: str) -> None:
    """A sweep was cut short; the next occasion is taken."""
    with ledger.write() as session:
        _row(session, name).swept_at = 0.0


def expire(ledger: Ledger, name: str, before: float, reason: str) -> int:
    """Give up deliveries that were planned before ``before`` and are still on their way; returns how many."""
    with ledger.write() as session:
        old = (
            col(DeliveryRow.destination) == name,
            col(DeliveryRow.state).in_(OPEN_STATES),
            col(DeliveryRow.created_at) < before,
        )
        values = {"state": DeliveryState.FAILED, "cause": "gave-up", "reason": reason}
        return int(session.exec(update(DeliveryRow).where(*old).values(**values)).rowcount)


def forsake(ledger: Ledger, known: Sequence[str]) -> int:
    """Deliveries to destinations that are not configured any more become dead letters; returns how many."""
    with ledger.write() as session:
        stray = (col(DeliveryRow.destination).not_in(known), col(DeliveryRow.state).in_(OPEN_STATES))
        reason = "no [[deliver]] of this name is configured any more; put it back and retry, or drop this delivery"
        values = {"state": DeliveryState.FAILED, "cause": "configuration", "reason": reason}
        return int(session.exec(update(DeliveryRow).where(*stray).values(**values)).rowcount)


def _row(session: Session, name: str) -> DestinationRow:
    row = session.get(DestinationRow, name, with_for_update=True)
    if row is None:
        row = DestinationRow(name=name)
        session.add(row)
        session.flush()
    return row


def _as_stand(row: DestinationRow) -> Stand:
    return Stand(row.name, row.state, row.failures, row.since, row.probe_at, row.reason, row.swept_at)
