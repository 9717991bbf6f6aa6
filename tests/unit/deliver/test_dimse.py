"""Another AE as a destination, over real associations on loopback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from handed import items, prove, send
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom import evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.proofs import by_find, unasked
from overread.domain.delivery import Outcome, Standing
from overread.domain.errors import Rejected, Unreachable
from overread.domain.peer import Peer
from overread.domain.result import Result

Make = Callable[..., tuple[Result, Path]]
Serve = Callable[..., Peer]

BOTH = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
FIND = {str(StudyRootQueryRetrieveInformationModelFind): (str(ImplicitVRLittleEndian),)}
ECHO = {str(Verification): (str(ImplicitVRLittleEndian),)}


def to(peer: Peer, witness: Any = by_find, timeout_s: float = 5.0, **calling: Any) -> DimseDestination:
    return DimseDestination("archive", Calling(peer, "OVERREAD", timeout_s=timeout_s, **calling), witness=witness)


def answering(status: int, seen: list[Any] | None = None) -> list[Any]:
    def store(event: Any) -> int:
        if seen is not None:
            seen.append((event.context.transfer_syntax, event.encoded_dataset(include_meta=False)))
        return status

    return [(evt.EVT_C_STORE, store)]


def data_set(path: Path) -> bytes:
    """The bytes behind the file meta information."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def found(uids: set[str]) -> list[Any]:
    """Answers to C-FIND at IMAGE level as a PACS gives them that holds ``uids``."""

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        assert event.identifier.QueryRetrieveLevel == "IMAGE"
        asked = event.identifier.SOPInstanceUID
        for uid in sorted(uids & {asked} if asked else uids):
            event.identifier.SOPInstanceUID = uid
            yield 0xFF00, event.identifier

    return [(evt.EVT_C_FIND, find)]


# send


def test_the_bytes_of_the_data_set_arrive_as_they_lie_in_the_file(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    sent = [make_result(1), make_result(2, pad=300_001 + 1)]
    send(to(serve(answering(0x0000, seen))), sent)
    assert [content for _, content in seen] == [data_set(path) for _, path in sent]


def test_all_objects_go_over_one_association_with_only_the_contexts_they_need(serve: Serve, make_result: Make) -> None:
    opened: list[list[tuple[str, list[str]]]] = []

    def accepted(event: Any) -> None:
        opened.append([(str(c.abstract_syntax), c.transfer_syntax) for c in event.assoc.requestor.requested_contexts])

    contexts = {str(SegmentationStorage): (RLELossless,), str(ComprehensiveSRStorage): (ExplicitVRLittleEndian,)}
    peer = serve([*answering(0x0000), (evt.EVT_ACCEPTED, accepted)], contexts)
    send(to(peer), [make_result(1, sop_class=ComprehensiveSRStorage), make_result(2, sop_class=ComprehensiveSRStorage)])
    assert opened == [
        [
            (ComprehensiveSRStorage, [ExplicitVRLittleEndian]),
            (ComprehensiveSRStorage, [ImplicitVRLittleEndian]),
        ]
    ]


@pytest.mark.parametrize("status", [0xB000, 0xB007])
def test_a_warning_is_taken_said_and_logged_without_the_patient(
    serve: Serve, make_result: Make, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    with caplog.at_level(logging.WARNING, "overread"):
        (told,) = send(to(serve(answering(status))), [make_result(1)]).values()
    assert (told.outcome, f"0x{status:04X}" in told.reason) == (Outcome.WARNED, True)
    (text,) = [r.getMessage() for r in caplog.records if r.name.startswith("overread")]
    assert f"0x{status:04X}" in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0xA700, Outcome.BUSY),
        (0xA701, Outcome.BUSY),
        (0x0110, Outcome.BUSY),
        (0x0111, Outcome.DUPLICATE),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0xC123, Outcome.REFUSED),
        (0x0122, Outcome.MISCONFIGURED),
        (0x0124, Outcome.MISCONFIGURED),
    ],
)
def test_each_status_means_what_the_standard_says(
    serve: Serve, make_result: Make, status: int, outcome: Outcome
) -> None:
    (told,) = send(to(serve(answering(status))), [make_result(1)]).values()
    assert told.outcome is outcome
    assert f"0x{status:04X}" in told.reason
    assert ("configuration fault" in told.reason) == (outcome is Outcome.MISCONFIGURED)


def test_an_object_that_is_refused_holds_up_no_other_and_a_busy_peer_is_left_in_peace(
    serve: Serve, make_result: Make
) -> None:
    seen: list[Any] = []
    assert len(send(to(serve(answering(0xC000, seen))), [make_result(1), make_result(2)])) == len(seen) == 2
    seen.clear()
    assert len(send(to(serve(answering(0xA700, seen))), [make_result(1), make_result(2)])) == len(seen) == 1


def test_a_sop_class_that_is_not_accepted_is_named_and_the_rest_is_delivered(
    serve: Serve, make_result: Make
) -> None:
    seen: list[Any] = []
    there = to(serve(answering(0x0000, seen)))
    sr = make_result(2, sop_class=ComprehensiveSRStorage)
    for made in ([make_result(1), sr], [sr]):
        told = send(there, made)[sr[0].sop_instance_uid]
        assert told.outcome is Outcome.MISCONFIGURED
        assert "Comprehensive SR Storage" in told.reason
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("takes", "sent"),
    [((SegmentationStorage, ComprehensiveSRStorage), 2), ((ComprehensiveSRStorage,), 2), ((SegmentationStorage,), 1)],
)
def test_of_variants_the_first_goes_that_is_accepted_and_the_others_are_passed_over_before_anything_is_sent(
    serve: Serve, make_result: Make, takes: tuple[str, ...], sent: int
) -> None:
    """Number 1 is the less wanted variant; the SR SOP Class stands in for a kind of segmentation few accept."""
    seen: list[Any] = []
    there = DimseDestination(
        "archive",
        Calling(serve(answering(0x0000, seen), {str(t): BOTH for t in takes}), "OVERREAD", timeout_s=5.0),
        variants=("labelmap", "binary"),
        witness=unasked,
    )
    made = [
        make_result(1, alternative="seg/1", variant="binary"),
        make_result(2, sop_class=ComprehensiveSRStorage, alternative="seg/1", variant="labelmap"),
    ]
    told = [(item.result.sop_instance_uid[-1], t.outcome, len(seen)) for item, t in there.send(items(made))]
    there.close()
    assert told == [(str(3 - sent), Outcome.PASSED_OVER, 0), (str(sent), Outcome.TAKEN, 1)]


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("theirs", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_an_uncompressed_object_is_rewritten_for_a_peer_that_takes_nothing_else(
    serve: Serve, make_result: Make, tmp_path: Path, own: str, theirs: str
) -> None:
    kept: list[bytes] = []

    def store(event: Any) -> int:
        kept.append(event.encoded_dataset())
        return 0x0000

    result, path = make_result(1, syntax=own)
    send(to(serve([(evt.EVT_C_STORE, store)], {str(SegmentationStorage): (theirs,)})), [(result, path)])
    (tmp_path / "kept.dcm").write_bytes(kept[0])
    there, here = dcmread(tmp_path / "kept.dcm"), dcmread(path)
    assert there.file_meta.TransferSyntaxUID == theirs
    assert there.PixelData == here.PixelData
    assert there.SOPInstanceUID == here.SOPInstanceUID


def test_a_deflated_object_stays_deflated_where_it_is_taken(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    result, path = make_result(1, syntax=DeflatedExplicitVRLittleEndian)
    takes = {str(SegmentationStorage): (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian)}
    send(to(serve(answering(0x0000, seen), takes)), [(result, path)])
    assert seen == [(DeflatedExplicitVRLittleEndian, data_set(path))]


def test_nothing_goes_deflated_where_that_is_not_wanted(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    made = make_result(1, syntax=DeflatedExplicitVRLittleEndian)
    takes = {str(SegmentationStorage): (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian)}
    send(to(serve(answering(0x0000, seen), takes), deflated=False), [made])
    assert [syntax for syntax, _ in seen] == [ExplicitVRLittleEndian]


def test_a_peer_that_is_down_is_tried_later_and_the_text_says_where(closed_port: int, make_result: Make) -> None:
    with pytest.raises(Unreachable, match=f"PEER at 127.0.0.1:{closed_port} cannot be reached: nothing listens there"):
        send(to(Peer("PEER", "127.0.0.1", closed_port)), [make_result(1)])


def test_an_unknown_host_is_tried_later(make_result: Make) -> None:
    with pytest.raises(Unreachable, match="host name is not known"):
        send(to(Peer("PEER", "no-such-host.invalid", 104)), [make_result(1)])


def test_a_refused_association_is_told_in_words_with_the_remedy(serve: Serve, make_result: Make) -> None:
    peer = serve(answering(0x0000), require_called_aet=True)
    with pytest.raises(Unreachable, match=r"permanent.*called AE title not recognised.*correct ae_title"):
        send(to(Peer("OTHER", peer.host, peer.port)), [make_result(1)])
    strict = serve(answering(0x0000), require_calling_aet=["SOMEBODY"])
    with pytest.raises(Unreachable, match="calling AE title 'OVERREAD': have it added"):
        send(to(strict), [make_result(1)])


def test_an_abort_in_the_middle_is_tried_later_over_a_new_association(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []

    def store(event: Any) -> int:
        seen.append(event.assoc)
        if len(seen) == 1:
            event.assoc.abort()
        return 0x0000

    there = to(serve([(evt.EVT_C_STORE, store)]))
    with pytest.raises(Unreachable, match=r"broke off|does not read|fell silent"):
        send(there, [make_result(1)])
    send(there, [make_result(1)])
    assert len({id(a) for a in seen}) == 2


def test_an_answer_that_does_not_come_ends_the_association_soon(serve: Serve, make_result: Make) -> None:
    stores: list[int] = []

    def store(_: Any) -> int:
        stores.append(1)
        time.sleep(2.5)
        return 0x0000

    started = time.monotonic()
    with pytest.raises(Unreachable, match="fell silent"):
        send(to(serve([(evt.EVT_C_STORE, store)]), timeout_s=1.0), [make_result(1), make_result(2)])
    assert time.monotonic() - started < 2.4
    assert stores == [1]


def test_a_peer_that_stops_reading_is_given_up_long_before_a_large_object_might_take(
    serve: Serve, make_result: Make
) -> None:
    woken = threading.Event()

    def stall(event: Any) -> None:
        if event.pdu.pdu_type == 0x04:
            woken.wait(20)

    peer = serve([*answering(0x0000), (evt.EVT_PDU_RECV, stall)])
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"broke off|does not read|fell silent"):
        send(to(peer, timeout_s=1.0), [make_result(1, pad=20_000_000)])
    woken.set()
    assert time.monotonic() - started < 15.0


def test_a_peer_that_never_answers_the_association_is_tried_later(silent: Peer, make_result: Make) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not answer the association request within 1 s|broke off"):
        send(to(silent, timeout_s=1.0), [make_result(1)])
    assert time.monotonic() - started < 4.0


def test_a_file_that_is_gone_or_damaged_is_refused(serve: Serve, make_result: Make) -> None:
    there = to(serve(answering(0x0000)))
    result, path = make_result(1)
    path.unlink()
    (told,) = send(there, [(result, path)]).values()
    assert (told.outcome, "cannot be sent" in told.reason) == (Outcome.REFUSED, True)


def test_the_association_is_used_again_and_released_when_nothing_is_due(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    handlers = [(event, lambda e: seen.append(e.event.name)) for event in (evt.EVT_ACCEPTED, evt.EVT_RELEASED)]
    there = to(serve([*answering(0x0000), *handlers]))
    for number in range(3):
        send(there, [make_result(number + 1)], keep=True)
    assert seen == ["EVT_ACCEPTED"]
    there.close()
    deadline = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert seen == ["EVT_ACCEPTED", "EVT_RELEASED"]


def test_the_calling_ae_title_is_ours_another_or_borrowed_from_the_sender(serve: Serve, make_result: Make) -> None:
    seen: list[str] = []

    def store(event: Any) -> int:
        seen.append(str(event.assoc.requestor.ae_title))
        return 0x0000

    peer = serve([(evt.EVT_C_STORE, store)])
    for calling_ae, sender in (("", "CT1"), ("READER", "CT1"), ("borrowed", "CT1"), ("borrowed", "")):
        send(to(peer, calling_ae=calling_ae), [make_result(1)], calling_ae=sender)
    assert seen == ["OVERREAD", "READER", "CT1", "OVERREAD"]


def test_nothing_to_send_opens_no_association(closed_port: int) -> None:
    send(to(Peer("PEER", "127.0.0.1", closed_port)), [])


# prove

THERE, MISSING = Standing.THERE, Standing.MISSING


def standings(there: Any, made: list[tuple[Result, Path]]) -> list[Standing]:
    return [proven.standing for proven in prove(there, made)]


def test_each_object_is_proven_by_its_uid(serve: Serve, make_result: Make) -> None:
    both = [make_result(1), make_result(2)]
    first, second = (result.sop_instance_uid for result, _ in both)
    assert standings(to(serve(found({first, second}), FIND)), both) == [THERE, THERE]
    assert standings(to(serve(found({first}), FIND)), both) == [THERE, MISSING]
    assert standings(to(serve(found(set()), FIND)), both[:1]) == [MISSING]


def test_a_peer_that_answers_with_other_objects_proves_nothing(serve: Serve, make_result: Make) -> None:
    def find(_: Any) -> Iterator[tuple[int, Dataset]]:
        other = Dataset()
        other.SOPInstanceUID = "1.2.3"
        yield 0xFF00, other

    assert standings(to(serve([(evt.EVT_C_FIND, find)], FIND)), [make_result(1)]) == [MISSING]


def test_objects_of_one_series_are_asked_for_together_over_one_association(serve: Serve, make_result: Make) -> None:
    opened: list[Any] = []
    made = [make_result(n) for n in range(1, 6)]
    answers = found({result.sop_instance_uid for result, _ in made})
    there = to(serve([*answers, (evt.EVT_ACCEPTED, opened.append)], FIND))
    assert [p.standing for p in prove(there, made, keep=True)] == [THERE] * 5
    assert standings(there, made[:1]) == [THERE]
    assert len(opened) == 1


def test_a_peer_without_queries_is_refused_with_the_remedy(serve: Serve, make_result: Make) -> None:
    with pytest.raises(Rejected, match=r'configuration fault.*proof = "none"'):
        prove(to(serve([], ECHO)), [make_result(1)])


@pytest.mark.parametrize("status", [0xA700, 0xC001])
def test_a_query_that_fails_is_tried_later(serve: Serve, make_result: Make, status: int) -> None:
    def find(_: Any) -> Iterator[tuple[int, None]]:
        yield status, None

    with pytest.raises(Unreachable, match=f"0x{status:04X}"):
        prove(to(serve([(evt.EVT_C_FIND, find)], FIND)), [make_result(1)])


def test_a_query_without_an_answer_is_tried_later(serve: Serve, make_result: Make) -> None:
    def find(_: Any) -> Iterator[tuple[int, None]]:
        time.sleep(2.0)
        yield 0xFE00, None

    with pytest.raises(Unreachable, match="fell silent"):
        prove(to(serve([(evt.EVT_C_FIND, find)], FIND), timeout_s=1.0), [make_result(1)])


def test_answers_without_end_are_cut_off(serve: Serve, make_result: Make) -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        while event.assoc.is_established:
            yield 0xFF00, event.identifier
            time.sleep(0.02)

    with pytest.raises(Unreachable, match="does not come to an end"):
        prove(to(serve([(evt.EVT_C_FIND, find)], FIND), timeout_s=0.2), [make_result(1)])


def test_its_word_is_taken_without_asking_when_no_proof_is_wanted(closed_port: int, make_result: Make) -> None:
    there = to(Peer("PEER", "127.0.0.1", closed_port), unasked)
    assert standings(there, [make_result(1)]) == [Standing.UNASKED]


# check


def test_check_says_that_it_answers(serve: Serve) -> None:
    assert "PEER at 127.0.0.1" in to(serve([], ECHO)).check()


def test_check_gives_the_reason_when_it_does_not(serve: Serve, closed_port: int) -> None:
    with pytest.raises(Unreachable, match="nothing listens there"):
        to(Peer("PEER", "127.0.0.1", closed_port)).check()
    with pytest.raises(Rejected, match="Verification SOP Class"):
        to(serve([])).check()
    with pytest.raises(Rejected, match="did not answer C-ECHO with success"):
        to(serve([(evt.EVT_C_ECHO, lambda _: 0x0122)], ECHO)).check()
