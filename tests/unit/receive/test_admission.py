"""Who may associate: a table."""

from __future__ import annotations

import pytest

from overread.receive.admission import Admission

ALLOW = [("CT1", "10.1.0.0/16"), ("*", "127.0.0.0/8"), ("MR1", "fd00::/8"), ("CT2", "10.1.2.3/32")]


@pytest.mark.parametrize(
    ("calling", "called", "address", "open_already", "room", "refusal"),
    [
        ("CT1", "OVERREAD", "10.1.2.9", 0, True, None),
        ("ANY", "OVERREAD", "127.0.0.1", 0, True, None),
        ("MR1", "OVERREAD", "fd00::1", 0, True, None),
        ("MR1", "OVERREAD", "fd00::1%eth0", 0, True, None),
        ("CT1", "OVERREAD", "::ffff:10.1.2.9", 0, True, None),
        ("CT2", "OVERREAD", "10.1.2.3", 0, True, None),
        ("CT2", "OVERREAD", "10.1.2.4", 0, True, (1, 1, 3, "calling-ae")),
        ("ct1", "OVERREAD", "10.1.2.9", 0, True, (1, 1, 3, "calling-ae")),
        ("", "OVERREAD", "10.1.2.9", 0, True, (1, 1, 3, "calling-ae")),
        ("CT1", "OVERREAD", "10.2.0.1", 0, True, (1, 1, 1, "address")),
        ("CT1", "OVERREAD", "2001:db8::1", 0, True, (1, 1, 1, "address")),
        ("CT1", "OTHER", "10.1.2.9", 0, True, (1, 1, 7, "called-ae")),
        ("CT1", "OVERREAD", "10.1.2.9", 2, True, None),
        ("CT1", "OVERREAD", "10.1.2.9", 3, True, (2, 3, 2, "limit")),
        ("CT1", "OVERREAD", "10.1.2.9", 0, False, (2, 3, 1, "storage-full")),
        ("XX", "OTHER", "192.0.2.1", 9, False, (1, 1, 1, "address")),
        ("XX", "OTHER", "10.1.2.9", 9, False, (1, 1, 3, "calling-ae")),
    ],
)
def test_each_caller_is_let_in_or_told_why_not(
    *, calling: str, called: str, address: str, open_already: int, room: bool, refusal: tuple | None
) -> None:
    """Result, source and reason as PS3.8 Table 9-21 has them; a stranger learns nothing of how full we are."""
    said = Admission(ALLOW, "OVERREAD", 3, lambda: room).judge(calling, called, address, open_already)
    assert (None if said is None else (said.result, said.source, said.reason, said.word)) == refusal


def test_any_called_title_may_be_allowed() -> None:
    assert Admission(ALLOW, None, 3, lambda: True).judge("CT1", "WHATEVER", "10.1.2.9", 0) is None


def test_nobody_is_let_in_by_an_empty_list() -> None:
    said = Admission([], None, 3, lambda: True).judge("CT1", "OVERREAD", "127.0.0.1", 0)
    assert said is not None
    assert said.word == "address"


@pytest.mark.parametrize(("allow", "only"), [(ALLOW, False), ([("*", "127.0.0.0/8"), ("*", "::1/128")], True)])
def test_whether_only_this_machine_may_call(allow: list, only: bool) -> None:
    assert Admission(allow, None, 3, lambda: True).only_loopback() is only
