"""Who may associate and how much: tables."""

from __future__ import annotations

import pickle
import threading
import time

import pytest

from overread.receive import admission
from overread.receive.admission import Admission, Knock, Pass, Refusal, Row

ALLOW = [("CT1", "10.1.0.0/16"), ("*", "127.0.0.0/8"), ("MR1", "fd00::/8"), ("CT2", "10.1.2.3/32")]
DAY_S = 86400.0


def word(answer: Pass | Refusal) -> str:
    return answer.word if isinstance(answer, Refusal) else ""


def door(*rows: Row, called: set[str] | None = None, most: int = 10) -> Admission:
    return Admission(rows, called, most, lambda: True)


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
        ("XX", "OTHER", "192.0.2.1", 3, False, (1, 1, 1, "address")),
        ("XX", "OTHER", "10.1.2.9", 3, False, (1, 1, 3, "calling-ae")),
    ],
)
def test_each_caller_is_let_in_or_told_why_not(
    *, calling: str, called: str, address: str, open_already: int, room: bool, refusal: tuple | None
) -> None:
    """Result, source and reason as PS3.8 Table 9-21 has them; a stranger learns nothing of how full we are."""
    spacious = [True]
    said = Admission(ALLOW, "OVERREAD", 3, lambda: spacious[0])
    others = [Knock(f"X{n}", "OVERREAD", f"127.0.0.{n + 1}") for n in range(open_already)]
    assert all(isinstance(said.enter(other), Pass) for other in others)
    spacious[0] = room
    answer = said.enter(Knock(calling, called, address))
    told = (answer.result, answer.source, answer.reason, answer.word) if isinstance(answer, Refusal) else None
    assert told == refusal


def test_any_called_title_may_be_allowed() -> None:
    assert isinstance(Admission(ALLOW, None, 3, lambda: True).enter(Knock("CT1", "WHATEVER", "10.1.2.9")), Pass)


def test_nobody_is_let_in_by_an_empty_list() -> None:
    assert word(Admission([], None, 3, lambda: True).enter(Knock("CT1", "OVERREAD", "127.0.0.1"))) == "address"


@pytest.mark.parametrize(("allow", "only"), [(ALLOW, False), ([("*", "127.0.0.0/8"), ("*", "::1/128")], True)])
def test_whether_only_this_machine_may_call(allow: list, only: bool) -> None:
    assert Admission(allow, None, 3, lambda: True).only_loopback() is only


def test_what_is_asked_and_answered_can_go_to_another_process() -> None:
    """Small values and nothing else, so that several listeners can have one admission."""
    said = door(Row("CT1", "10.0.0.0/8"))
    knock = Knock("CT1", "A", "10.0.0.1", ("ct1",))
    for value in (knock, said.enter(knock), said.enter(Knock("X", "A", "::1"))):
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_row_may_be_for_one_called_title_only() -> None:
    rows = Row("CT1", "10.0.0.0/8", called_ae="STAT"), Row("*", "10.0.0.0/8")
    said = door(*rows, called={"OVERREAD", "STAT"})
    assert word(said.enter(Knock("CT1", "STAT", "10.0.0.1"))) == ""
    assert word(said.enter(Knock("CT1", "OVERREAD", "10.0.0.1"))) == "called-ae"  # the row for anybody does not help
    assert word(said.enter(Knock("CT2", "OVERREAD", "10.0.0.1"))) == ""


@pytest.mark.parametrize(
    ("pattern", "calling", "names", "fits"),
    [
        ("ct1.example.org", "CT1", ("ct1.example.org",), True),
        ("ct1.example.org", "CT1", ("CT1.Example.ORG",), True),
        ("ct1.example.org", "CT1", ("other", "ct1.example.org"), True),
        ("ct1.example.org", "CT1", ("ct2.example.org",), False),
        ("ct1.example.org", "CT1", ("ct1.example.org.evil.example",), False),
        ("ct1.example.org", "CT1", (), False),
        ("*.example.org", "CT1", ("anything.example.org",), True),
        ("{ae_title}.example.org", "CT1", ("ct1.example.org",), True),
        ("{ae_title}.example.org", "CT1", ("ct2.example.org",), False),
        ("{ae_title}", "*", ("CT1",), False),
        ("*", "CT1", ("whoever",), True),
        ("*", "CT1", (), False),
    ],
)
def test_a_certificate_must_carry_a_name(*, pattern: str, calling: str, names: tuple, fits: bool) -> None:
    """A caller that calls itself ``*`` is no pattern."""
    answer = door(Row("*", "10.0.0.0/8", certificate=pattern)).enter(Knock(calling, "A", "10.0.0.1", names))
    assert word(answer) == ("" if fits else "certificate")
    assert fits or (answer.result, answer.source, answer.reason) == (1, 1, 3)


@pytest.mark.parametrize(
    ("row", "names", "title"),
    [
        (Row("CT1", "10.0.0.0/8", certificate="ct1.example.org"), ("ct1.example.org",), "CT1"),
        (Row("*", "10.0.0.0/8", certificate="{ae_title}.example.org"), ("mr7.example.org",), "MR7"),
        (Row("*", "10.0.0.0/8", certificate="{ae_title}"), ("a-name-too-long-for-it",), None),
        (Row("*", "10.0.0.0/8", certificate="*.example.org"), ("mr7.example.org",), None),
        (Row("CT1", "10.0.0.0/8"), ("CT1",), None),
    ],
)
def test_a_certificate_stands_for_an_ae_title(row: Row, names: tuple, title: str | None) -> None:
    assert door(row).ae_title_of(names) == title


def test_one_peer_gets_half_of_all_places_and_another_finds_one() -> None:
    said = door(Row("*", "127.0.0.0/8"), most=5)
    first = [said.enter(Knock(f"AE{n}", "A", "127.0.0.1")) for n in range(4)]
    assert [word(a) for a in first] == ["", "", "", "peer-limit"]
    assert (first[3].result, first[3].source, first[3].reason) == (2, 3, 2)
    assert [word(said.enter(Knock("B", "A", "127.0.0.2"))) for _ in range(3)] == ["", "", "limit"]
    said.leave(first[0].id)
    said.leave(first[0].id)
    assert [word(said.enter(Knock("B", "A", "127.0.0.3"))) for _ in range(2)] == ["", "limit"]


def test_the_limit_of_a_named_row_is_for_its_title_wherever_it_calls_from() -> None:
    said = door(Row("CT1", "10.0.0.0/8", max_associations=2), Row("CT2", "10.0.0.0/8", max_associations=1))
    assert [word(said.enter(Knock("CT1", "A", f"10.0.0.{n}"))) for n in range(3)] == ["", "", "peer-limit"]
    assert [word(said.enter(Knock("CT2", "A", "10.0.0.1"))) for _ in range(2)] == ["", "peer-limit"]


def test_so_many_associations_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were let in count, not those that were refused; after a minute there is room again."""
    now = [1000.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: now[0])
    said = door(Row("CT1", "10.0.0.0/8", max_per_minute=2))

    def enter() -> str:
        answer = said.enter(Knock("CT1", "A", "10.0.0.1"))
        if isinstance(answer, Pass):
            said.leave(answer.id)
        return word(answer)

    assert [enter(), enter(), enter()] == ["", "", "rate"]
    now[0] += 61
    assert [enter(), enter(), enter()] == ["", "", "rate"]


def test_so_many_bytes_a_day() -> None:
    """What is spent stays spent for every association of the peer until the day ends; others are not concerned."""
    now = [time.mktime((2026, 6, 1, 23, 0, 0, 0, 0, -1))]
    rows = [Row("CT1", "10.0.0.0/8", max_bytes_per_day=100), Row("CT2", "10.0.0.0/8")]
    said = Admission(rows, None, 10, lambda: True, clock=lambda: now[0])
    first, second = (said.enter(Knock("CT1", "A", "10.0.0.1")) for _ in range(2))
    assert isinstance(first, Pass) and isinstance(second, Pass) and first.metered
    assert said.spend(first.id, 60) and not said.spend(second.id, 60) and not said.spend(first.id, 0)
    answer = said.enter(Knock("CT1", "A", "10.0.0.1"))
    assert isinstance(answer, Refusal)
    assert (answer.result, answer.source, answer.reason, answer.word) == (2, 3, 1, "quota")
    other = said.enter(Knock("CT2", "A", "10.0.0.1"))
    assert isinstance(other, Pass) and not other.metered and said.spend(other.id, 10**12)
    now[0] += 2 * 3600
    assert said.spend(first.id, 0) and word(said.enter(Knock("CT1", "A", "10.0.0.1"))) == ""


def test_many_threads_never_get_more_than_there_is() -> None:
    said, passes = door(Row("*", "127.0.0.0/8", max_associations=100), most=7), []

    def come_and_go() -> None:
        for _ in range(300):
            answer = said.enter(Knock("A", "A", "127.0.0.1"))
            if isinstance(answer, Pass):
                passes.append(1)
                assert len(passes) <= 7
                passes.pop()
                said.leave(answer.id)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [word(said.enter(Knock("A", "A", "127.0.0.1"))) for _ in range(8)] == [""] * 7 + ["limit"]


def test_strangers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_PEERS", 50)
    said = door(Row("*", "10.0.0.0/8"))
    for n in range(500):
        answer = said.enter(Knock("A", "A", f"10.0.{n // 250}.{n % 250}"))
        assert isinstance(answer, Pass)
        said.leave(answer.id)
    assert len(said._peers) <= 50
