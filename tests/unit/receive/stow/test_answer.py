"""Which status a report gets, for every way in which a request can end; and that its reason is fit for a header."""

from __future__ import annotations

import pytest

from overread.receive.stow.answer import STATUSES, answer, status_of
from overread.receive.stow.store import End, Flaw, Outcome, Report

GOOD = Outcome("1.2", "1.3", 0)
BAD = Outcome("1.2", "1.4", 0xC000, "cut off")
FULL = Outcome("1.2", "1.5", 0xA700, "no room")
OTHER_TYPE = Outcome("", "", 0xC000, "a picture", Flaw.MEDIA_TYPE)
LARGE = Outcome("1.2", "1.6", 0xA700, "too large", Flaw.TOO_LARGE)


@pytest.mark.parametrize(
    ("outcomes", "end", "status"),
    [
        ([GOOD, GOOD], End.WHOLE, 200),
        ([GOOD, BAD], End.WHOLE, 202),
        ([GOOD, FULL], End.WHOLE, 202),
        ([GOOD, OTHER_TYPE], End.WHOLE, 202),
        ([BAD, BAD], End.WHOLE, 409),
        ([BAD, OTHER_TYPE], End.WHOLE, 409),
        ([BAD, FULL], End.WHOLE, 409),
        ([FULL, LARGE], End.WHOLE, 409),
        ([OTHER_TYPE], End.WHOLE, 415),
        ([FULL, FULL], End.WHOLE, 503),
        ([LARGE], End.WHOLE, 413),
        ([], End.WHOLE, 400),
        ([], End.NOT_MULTIPART, 400),
        ([], End.CUT_OFF, 400),
        ([BAD], End.CUT_OFF, 400),
        ([GOOD], End.CUT_OFF, 202),
        ([GOOD], End.TOO_SLOW, 408),
        ([GOOD], End.TOO_MUCH, 413),
        ([], End.TOO_MUCH, 413),
    ],
)
def test_the_status_of_a_report(outcomes: list[Outcome], end: End, status: int) -> None:
    assert status_of(Report(outcomes, end)) == status and status in STATUSES


def test_200_is_said_of_nothing_but_whole_requests() -> None:
    some = [GOOD, BAD, FULL, OTHER_TYPE, LARGE]
    for end in End:
        for first in some:
            for second in some:
                report = Report([first, second], end)
                assert (status_of(report) == 200) == (end is End.WHOLE and first is second is GOOD)


def test_a_reason_cannot_break_out_of_its_header() -> None:
    report = Report([Outcome("1.2", "1.4", 0xC000, 'a "name" \\ ü\r\nSet-Cookie: x')])
    fields = dict(answer(report, "application/dicom+json").fields)
    assert fields["Warning"] == '299 overread "a ?name? ? ???Set-Cookie: x"'
