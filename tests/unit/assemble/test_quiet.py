"""A study is whole when it has been quiet for as long as its slowest modality may pause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from overread.assemble.quiet import QuietTime, close_quiet_studies
from overread.domain.events import Event, StudyCompleted
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, open_ledger
from overread.ledger.arrivals import Arrival, Waiting

QUIET = QuietTime(30.0, {"CT": 10.0, "US": 300.0})
Headers = Callable[..., list[Instance]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    books = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield books
    books.close()


def came(ledger: Ledger, instances: list[Instance], at: float, study: str = "1.2") -> None:
    arrivals.record(ledger, [Arrival(replace(i, study_uid=study, path=i.sop_instance_uid), 1, at) for i in instances])


@pytest.mark.parametrize(
    ("modalities", "quiet_s"),
    [(("CT",), 10.0), (("MR",), 30.0), (("CT", "MR"), 30.0), (("CT", "US"), 300.0), ((), 30.0)],
)
def test_the_slowest_modality_decides(modalities: tuple[str, ...], quiet_s: float) -> None:
    assert QUIET.of(Waiting("1.2", 0.0, modalities, 1)) == quiet_s


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        (109.9, 0),
        (110.0, 1),
        (100.0, 0),
        (99.99, 0),
        (50.0, 1),
    ],
    ids=["not yet", "quiet", "just now", "an image came after the clock was read", "a clock set back by far"],
)
def test_a_study_is_closed_after_its_quiet_time(ledger: Ledger, ct_headers: Headers, now: float, closed: int) -> None:
    came(ledger, ct_headers(3), 100.0)
    events: list[Event] = []
    assert close_quiet_studies(ledger, QUIET, now, events.append) == closed
    assert events == [StudyCompleted("1.2", 3, 1)] * closed


def test_time_in_which_nothing_could_come_does_not_count(ledger: Ledger, ct_headers: Headers) -> None:
    """The service was down from 105 to 200, and whoever had begun to send could not go on."""
    came(ledger, ct_headers(3), 100.0)
    quiet = replace(QUIET, since=200.0)
    assert [close_quiet_studies(ledger, quiet, now, lambda _: None) for now in (200.0, 209.9, 210.0)] == [0, 0, 1]


def test_each_image_makes_it_wait_again(ledger: Ledger, ct_headers: Headers) -> None:
    for k, at in enumerate([100.0, 109.0, 118.0], 1):
        came(ledger, ct_headers(k), at)
        assert close_quiet_studies(ledger, QUIET, at + 9, print) == 0
    assert close_quiet_studies(ledger, QUIET, 128.0, lambda _: None) == 1


def test_one_study_does_not_wait_for_another(ledger: Ledger, ct_headers: Headers) -> None:
    came(ledger, ct_headers(3), 100.0)
    came(ledger, ct_headers(3, series=5), 109.0, study="9.9")
    events: list[Event] = []
    close_quiet_studies(ledger, QUIET, 111.0, events.append)
    assert events == [StudyCompleted("1.2", 3, 1)]


def test_a_late_image_makes_the_next_revision(ledger: Ledger, ct_headers: Headers) -> None:
    events: list[Event] = []
    came(ledger, ct_headers(3), 100.0)
    close_quiet_studies(ledger, QUIET, 120.0, events.append)
    came(ledger, ct_headers(4), 130.0)
    close_quiet_studies(ledger, QUIET, 140.0, events.append)
    assert events == [StudyCompleted("1.2", 3, 1), StudyCompleted("1.2", 4, 2)]
    assert close_quiet_studies(ledger, QUIET, 999.0, events.append) == 0
