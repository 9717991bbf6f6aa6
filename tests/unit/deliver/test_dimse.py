"""Another AE as a destination, over real associations on loopback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
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

from overread.deliver.dimse import DimseDestination
from overread.domain.errors import Rejected, Unreachable
from overread.domain.peer import Peer
from overread.domain.result import Result

Make = Callable[..., tuple[Result, Path]]
Serve = Callable[..., Peer]

FIND = {str(StudyRootQueryRetrieveInformationModelFind): (str(ImplicitVRLittleEndian),)}
ECHO = {str(Verification): (str(ImplicitVRLittleEndian),)}


def to(peer: Peer, proof: str = "c-find", timeout_s: float = 5.0) -> DimseDestination:
    return DimseDestination("archive", peer, "OVERREAD", proof, timeout_s)


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
        if event.identifier.SOPInstanceUID in uids:
            yield 0xFF00, event.identifier

    return [(evt.EVT_C_FIND, find)]


# send


def test_the_bytes_of_the_data_set_arrive_as_they_lie_in_the_file(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    sent = [make_result(1), make_result(2, pad=300_001 + 1)]
    to(serve(answering(0x0000, seen))).send(sent)
    assert [content for _, content in seen] == [data_set(path) for _, path in sent]


def test_all_objects_go_over_one_association_with_only_the_contexts_they_need(serve: Serve, make_result: Make) -> None:
    opened: list[list[tuple[str, list[str]]]] = []

    def accepted(event: Any) -> None:
        opened.append([(str(c.abstract_syntax), c.transfer_syntax) for c in event.assoc.requestor.requested_contexts])

    contexts = {str(SegmentationStorage): (RLELossless,), str(ComprehensiveSRStorage): (ExplicitVRLittleEndian,)}
    peer = serve([*answering(0x0000), (evt.EVT_ACCEPTED, accepted)], contexts)
    to(peer).send([make_result(1, sop_class=ComprehensiveSRStorage), make_result(2, sop_class=ComprehensiveSRStorage)])
    assert opened == [
        [
            (ComprehensiveSRStorage, [ExplicitVRLittleEndian]),
            (ComprehensiveSRStorage, [ImplicitVRLittleEndian]),
        ]
    ]


@pytest.mark.parametrize("status", [0xB000, 0xB007, 0x0111])
def test_a_warning_is_taken_and_logged_without_the_patient(
    serve: Serve, make_result: Make, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    with caplog.at_level(logging.WARNING, "overread"):
        to(serve(answering(status))).send([make_result(1)])
    (text,) = [r.getMessage() for r in caplog.records if r.name.startswith("overread")]
    assert f"0x{status:04X}" in text
    assert "SECRET" not in text


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0x0110])
def test_out_of_resources_is_tried_later(serve: Serve, make_result: Make, status: int) -> None:
    with pytest.raises(Unreachable, match=f"0x{status:04X}"):
        to(serve(answering(status))).send([make_result(1)])


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0124])
def test_a_refusal_is_for_good_and_says_why(serve: Serve, make_result: Make, status: int) -> None:
    with pytest.raises(Rejected, match=f"0x{status:04X} for 1.2.826.0.1.3.1: .+") as raised:
        to(serve(answering(status))).send([make_result(1)])
    assert "SECRET" not in str(raised.value)


def test_what_is_behind_a_refused_object_is_not_sent(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    with pytest.raises(Rejected):
        to(serve(answering(0xC000, seen))).send([make_result(1), make_result(2)])
    assert len(seen) == 1


def test_a_sop_class_that_is_not_accepted_is_named_and_nothing_is_sent(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    peer = serve(answering(0x0000, seen))
    with pytest.raises(Rejected, match="Comprehensive SR Storage"):
        to(peer).send([make_result(1), make_result(2, sop_class=ComprehensiveSRStorage)])
    with pytest.raises(Rejected, match="Comprehensive SR Storage"):
        to(peer).send([make_result(2, sop_class=ComprehensiveSRStorage)])
    assert not seen


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
    to(serve([(evt.EVT_C_STORE, store)], {str(SegmentationStorage): (theirs,)})).send([(result, path)])
    (tmp_path / "kept.dcm").write_bytes(kept[0])
    there, here = dcmread(tmp_path / "kept.dcm"), dcmread(path)
    assert there.file_meta.TransferSyntaxUID == theirs
    assert there.PixelData == here.PixelData
    assert there.SOPInstanceUID == here.SOPInstanceUID


def test_a_deflated_object_stays_deflated_where_it_is_taken(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []
    result, path = make_result(1, syntax=DeflatedExplicitVRLittleEndian)
    takes = {str(SegmentationStorage): (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian)}
    to(serve(answering(0x0000, seen), takes)).send([(result, path)])
    assert seen == [(DeflatedExplicitVRLittleEndian, data_set(path))]


def test_a_peer_that_is_down_is_tried_later_and_the_text_says_where(closed_port: int, make_result: Make) -> None:
    with pytest.raises(Unreachable, match=f"PEER at 127.0.0.1:{closed_port} cannot be reached: nothing listens there"):
        to(Peer("PEER", "127.0.0.1", closed_port)).send([make_result(1)])


def test_an_unknown_host_is_tried_later(make_result: Make) -> None:
    with pytest.raises(Unreachable, match="host name is not known"):
        to(Peer("PEER", "no-such-host.invalid", 104)).send([make_result(1)])


def test_a_refused_association_is_told_in_words_with_the_remedy(serve: Serve, make_result: Make) -> None:
    peer = serve(answering(0x0000), require_called_aet=True)
    with pytest.raises(Unreachable, match=r"Rejected Permanent, .*Called AE title not recognised.*correct ae_title"):
        to(Peer("OTHER", peer.host, peer.port)).send([make_result(1)])
    strict = serve(answering(0x0000), require_calling_aet=["SOMEBODY"])
    with pytest.raises(Unreachable, match="calling AE title 'OVERREAD': have it added"):
        to(strict).send([make_result(1)])


def test_an_abort_in_the_middle_is_tried_later_over_a_new_association(serve: Serve, make_result: Make) -> None:
    seen: list[Any] = []

    def store(event: Any) -> int:
        seen.append(event.assoc)
        if len(seen) == 1:
            event.assoc.abort()
        return 0x0000

    there = to(serve([(evt.EVT_C_STORE, store)]))
    with pytest.raises(Unreachable, match="fell silent or broke off"):
        there.send([make_result(1)])
    there.send([make_result(1)])
    assert len({id(a) for a in seen}) == 2


def test_an_answer_that_does_not_come_ends_the_association_soon(serve: Serve, make_result: Make) -> None:
    stores: list[int] = []

    def store(_: Any) -> int:
        stores.append(1)
        time.sleep(2.5)
        return 0x0000

    started = time.monotonic()
    with pytest.raises(Unreachable, match="fell silent"):
        to(serve([(evt.EVT_C_STORE, store)]), timeout_s=1.0).send([make_result(1), make_result(2)])
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
    with pytest.raises(Unreachable, match="fell silent or broke off"):
        to(peer, timeout_s=1.0).send([make_result(1, pad=20_000_000)])
    woken.set()
    assert time.monotonic() - started < 15.0


def test_a_peer_that_never_answers_the_association_is_tried_later(silent: Peer, make_result: Make) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"did not answer the association request within 1 s|broke off"):
        to(silent, timeout_s=1.0).send([make_result(1)])
    assert time.monotonic() - started < 4.0


def test_a_file_that_is_gone_or_damaged_is_rejected(serve: Serve, make_result: Make) -> None:
    there = to(serve(answering(0x0000)))
    result, path = make_result(1)
    path.write_bytes(b"no Part 10 file at all")
    with pytest.raises(Rejected, match="cannot be sent"):
        there.send([(result, path)])
    path.unlink()
    with pytest.raises(Rejected, match="cannot be sent"):
        there.send([(result, path)])


def test_nothing_to_send_opens_no_association(closed_port: int) -> None:
    to(Peer("PEER", "127.0.0.1", closed_port)).send([])


# prove


def test_it_is_proven_only_when_every_uid_comes_back(serve: Serve, make_result: Make) -> None:
    first, second = make_result(1)[0], make_result(2)[0]
    assert to(serve(found({first.sop_instance_uid, second.sop_instance_uid}), FIND)).prove([first, second])
    assert not to(serve(found({first.sop_instance_uid}), FIND)).prove([first, second])
    assert not to(serve(found(set()), FIND)).prove([first])


def test_a_peer_that_answers_with_other_objects_proves_nothing(serve: Serve, make_result: Make) -> None:
    def find(_: Any) -> Iterator[tuple[int, Dataset]]:
        other = Dataset()
        other.SOPInstanceUID = "1.2.3"
        yield 0xFF00, other

    assert not to(serve([(evt.EVT_C_FIND, find)], FIND)).prove([make_result(1)[0]])


def test_all_questions_go_over_one_association(serve: Serve, make_result: Make) -> None:
    opened: list[Any] = []
    results = [make_result(n)[0] for n in range(1, 6)]
    answers = found({r.sop_instance_uid for r in results})
    assert to(serve([*answers, (evt.EVT_ACCEPTED, opened.append)], FIND)).prove(results)
    assert len(opened) == 1


def test_a_peer_without_queries_is_refused_with_the_remedy(serve: Serve, make_result: Make) -> None:
    with pytest.raises(Rejected, match='proof = "none"'):
        to(serve([], ECHO)).prove([make_result(1)[0]])


@pytest.mark.parametrize("status", [0xA700, 0xC001])
def test_a_query_that_fails_is_tried_later(serve: Serve, make_result: Make, status: int) -> None:
    def find(_: Any) -> Iterator[tuple[int, None]]:
        yield status, None

    with pytest.raises(Unreachable, match=f"0x{status:04X}"):
        to(serve([(evt.EVT_C_FIND, find)], FIND)).prove([make_result(1)[0]])


def test_a_query_without_an_answer_is_tried_later(serve: Serve, make_result: Make) -> None:
    def find(_: Any) -> Iterator[tuple[int, None]]:
        time.sleep(2.0)
        yield 0xFE00, None

    with pytest.raises(Unreachable, match="fell silent"):
        to(serve([(evt.EVT_C_FIND, find)], FIND), timeout_s=1.0).prove([make_result(1)[0]])


def test_answers_without_end_are_cut_off(serve: Serve, make_result: Make) -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        while event.assoc.is_established:
            yield 0xFF00, event.identifier
            time.sleep(0.02)

    with pytest.raises(Unreachable, match="does not come to an end"):
        to(serve([(evt.EVT_C_FIND, find)], FIND), timeout_s=0.2).prove([make_result(1)[0]])


def test_its_word_is_taken_without_asking_when_no_proof_is_wanted(closed_port: int, make_result: Make) -> None:
    assert to(Peer("PEER", "127.0.0.1", closed_port), proof="none").prove([make_result(1)[0]])


# check


def test_check_says_that_it_answers(serve: Serve) -> None:
    assert "PEER at 127.0.0.1" in to(serve([], ECHO)).check()


def test_check_gives_the_reason_when_it_does_not(serve: Serve, closed_port: int) -> None:
    with pytest.raises(Unreachable, match="nothing listens there"):
        to(Peer("PEER", "127.0.0.1", closed_port)).check()
    with pytest.raises(Unreachable, match="Verification SOP Class"):
        to(serve([])).check()
    with pytest.raises(Unreachable, match="did not answer C-ECHO with success"):
        to(serve([(evt.EVT_C_ECHO, lambda _: 0x0122)], ECHO)).check()
