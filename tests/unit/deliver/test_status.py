"""What a C-STORE status means (PS3.4 Table B.2-1)."""

from __future__ import annotations

import pytest

from overread.deliver.status import outcome_of
from overread.domain.delivery import Outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Outcome.TAKEN),
        (0xB000, Outcome.WARNED),
        (0xB006, Outcome.WARNED),
        (0xB007, Outcome.WARNED),
        (0xB123, Outcome.WARNED),
        (0x0111, Outcome.DUPLICATE),
        (0xA700, Outcome.BUSY),
        (0xA7FF, Outcome.BUSY),
        (0x0110, Outcome.BUSY),
        (0x0213, Outcome.BUSY),
        (0xFE00, Outcome.BUSY),
        (0xA900, Outcome.REFUSED),
        (0xA9FF, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0xCFFF, Outcome.REFUSED),
        (0x0122, Outcome.MISCONFIGURED),
        (0x0124, Outcome.MISCONFIGURED),
        (0x0117, Outcome.REFUSED),
    ],
)
def test_status_tells_what_to_do_next(status: int, outcome: Outcome) -> None:
    assert outcome_of(status)[0] is outcome


def test_every_status_has_a_meaning_in_words() -> None:
    assert all(outcome_of(status)[1] for status in range(0x10000))


def test_only_the_success_and_warning_statuses_count_as_taken() -> None:
    kept = {s for s in range(0x10000) if outcome_of(s)[0] in (Outcome.TAKEN, Outcome.WARNED)}
    assert kept == {0x0000, 0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)}
