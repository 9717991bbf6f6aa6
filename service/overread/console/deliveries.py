"""Deliveries in plain words: each on one line, with its reason and its next try; and how the destinations stand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from overread.domain.result import OPEN_STATES, DeliveryState
from overread.ledger import Ledger, destinations
from overread.ledger.destinations import Stand
from overread.ledger.letters import Letter
from overread.ledger.tables import DeliveryRow
from overread.ledger.views import JobStory


def moment(at: float) -> str:
    """Seconds since the epoch as UTC to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def one_line(letter: Letter, closed_to: Mapping[str, Stand]) -> str:
    """A delivery as ``overread deliveries list`` shows it."""
    row = letter.row
    tries = f"{row.attempts} {'try' if row.attempts == 1 else 'tries'}"
    said = "; ".join(_said(row, closed_to))
    return (
        f"{row.id:>6}  {row.state:<8}  {row.destination}  {letter.kind} of job {row.job_id}  {tries}"
        f"{'  ' + said if said else ''}"
    )


def sent(story: JobStory, closed_to: Mapping[str, Stand]) -> Iterator[str]:
    """The deliveries of a job, for ``overread explain``."""
    kinds = {r.sop_instance_uid: r.kind for r in story.results}
    for row in story.deliveries:
        said = "; ".join(_said(row, closed_to))
        what = kinds.get(row.sop_instance_uid, "result")
        why = f" ({said})" if said else ""
        yield f"delivery {row.id}: {what} {row.sop_instance_uid} to {row.destination}: {row.state}{why}"


def standings(ledger: Ledger, now: float) -> Iterator[str]:
    """One line for each destination that nothing is sent to."""
    for stand in destinations.stands(ledger):
        if stand.is_open:
            in_s = max(0.0, stand.probe_at - now)
            yield (
                f"closed      {stand.name}: nothing is sent since {moment(stand.since)}, it is asked again in "
                f"{in_s:.0f} s: {stand.reason}"
            )


def _said(row: DeliveryRow, closed_to: Mapping[str, Stand]) -> Iterator[str]:
    stand = closed_to.get(row.destination)
    if row.reason:
        yield row.reason
    elif row.state == DeliveryState.SENT:
        yield "taken, to be proven"
    if row.state not in OPEN_STATES:
        return
    if row.lease_until > time.time():
        yield "under way"
    elif stand is not None:
        reason = "" if row.reason == stand.reason else f": {stand.reason}"
        yield f"waits for {row.destination}, which is asked again at {moment(stand.probe_at)}{reason}"
    elif row.not_before > time.time():
        yield f"next try at {moment(row.not_before)}"
