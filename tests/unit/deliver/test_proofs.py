"""Storage commitment, C-GET and C-MOVE as proofs, TLS, and the answers that come to the listener."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from handed import prove, send
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from secured import Papers

from overread.deliver.commitment import NO_SUCH_INSTANCE, Committer, verdict
from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.proofs import by_find, unasked
from overread.deliver.retrieving import GET_SOP_CLASS, MOVE_SOP_CLASS, Mover, by_get
from overread.deliver.tls import Tls
from overread.domain.delivery import Outcome, Standing
from overread.domain.errors import ConfigError, Rejected, Unreachable
from overread.domain.peer import Peer
from overread.domain.result import DeliveryState, Result
from overread.ledger.letters import Awaited
from overread.receive.commitment_report import Reports
from overread.receive.commitment_report import context as report_context
from overread.spool.answers import AnswerBox, CommitmentAnswer

Make = Callable[..., tuple[Result, Path]]
Serve = Callable[..., Peer]
IMPLICIT = (str(ImplicitVRLittleEndian),)
PUSH = str(StorageCommitmentPushModel)


def to(peer: Peer, witness: Any, **calling: Any) -> DimseDestination:
    return DimseDestination("archive", Calling(peer, "OVERREAD", timeout_s=5.0, **calling), witness=witness)


# storage commitment


def report(transaction_uid: str, succeeded: list[str], failed: dict[str, int]) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [reference(uid) for uid in succeeded]
    if failed:
        information.FailedSOPSequence = [reference(uid, reason) for uid, reason in failed.items()]
    return information


def reference(uid: str, reason: int | None = None) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = SegmentationStorage, uid
    if reason is not None:
        made.FailureReason = reason
    return made


@pytest.fixture
def box(tmp_path: Path) -> AnswerBox:
    return AnswerBox(tmp_path / "answers")


def test_the_answer_comes_on_the_same_association(serve: Serve, make_result: Make, box: AnswerBox) -> None:
    asked: list[tuple[str, list[str]]] = []

    def action(event: Any) -> tuple[int, None]:
        information = event.action_information
        uids = [str(i.ReferencedSOPInstanceUID) for i in information.ReferencedSOPSequence]
        asked.append((str(information.TransactionUID), uids))

        def tell() -> None:
            time.sleep(0.1)
            event.assoc.send_n_event_report(
                report(asked[0][0], uids[:1], {uids[1]: NO_SUCH_INSTANCE}), 2, PUSH, "1.2.840.10008.1.20.1.1"
            )

        threading.Thread(target=tell).start()
        return 0x0000, None

    there = to(serve([(evt.EVT_N_ACTION, action)], {PUSH: IMPLICIT}), Committer(60.0, box))
    made = [make_result(1), make_result(2)]
    uids = [result.sop_instance_uid for result, _ in made]
    proven = prove(there, made)
    assert {(p.standing, p.wait_s, p.transaction_uid) for p in proven} == {(Standing.AWAITED, 60.0, asked[0][0])}
    ((_, answer),) = box.answers()
    assert answer == CommitmentAnswer(asked[0][0], frozenset(uids[:1]), {uids[1]: NO_SUCH_INSTANCE})


def test_what_was_not_answered_in_time_is_asked_for_otherwise_or_anew(
    serve: Serve, make_result: Make, box: AnswerBox
) -> None:
    asked: list[str] = []

    def action(event: Any) -> tuple[int, None]:
        asked.append(str(event.action_information.TransactionUID))
        return 0x0000, None

    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        yield 0xFF00, event.identifier

    from overread.deliver.proofs import FIND_SOP_CLASS

    handlers = [(evt.EVT_N_ACTION, action), (evt.EVT_C_FIND, find)]
    peer = serve(handlers, {PUSH: IMPLICIT, FIND_SOP_CLASS: IMPLICIT})
    (late,) = prove(to(peer, Committer(60.0, box, by_find)), [make_result(1)], transaction_uid="2.25.1")
    assert (late.standing, asked) == (Standing.THERE, [])
    (anew,) = prove(to(peer, Committer(60.0, box)), [make_result(1)], transaction_uid="2.25.1")
    assert (anew.standing, anew.transaction_uid) == (Standing.AWAITED, asked[0])
    assert asked[0] != "2.25.1"


@pytest.mark.parametrize(
    ("status", "error"), [(0x0122, Rejected), (0x0124, Rejected), (0x0110, Unreachable), (0x0213, Unreachable)]
)
def test_a_peer_that_does_not_commit_says_why(
    serve: Serve, make_result: Make, box: AnswerBox, status: int, error: type[Exception]
) -> None:
    peer = serve([(evt.EVT_N_ACTION, lambda _: (status, None))], {PUSH: IMPLICIT})
    with pytest.raises(error, match=f"0x{status:04X}"):
        prove(to(peer, Committer(60.0, box)), [make_result(1)])
    with pytest.raises(Rejected, match="cannot be asked by storage commitment"):
        prove(to(serve([]), Committer(60.0, box)), [make_result(1)])


@pytest.mark.parametrize(
    ("answer", "state", "cause"),
    [
        (CommitmentAnswer("t", frozenset({"1.2"})), DeliveryState.VERIFIED, ""),
        (CommitmentAnswer("t", failed={"1.2": 0x0112}), DeliveryState.PENDING, "unproven"),
        (CommitmentAnswer("t", failed={"1.2": 0x0110}), DeliveryState.SENT, "unproven"),
        (CommitmentAnswer("t", failed={"1.2": 0x0213}), DeliveryState.SENT, "unproven"),
        (CommitmentAnswer("t", failed={"1.2": 0x0122}), DeliveryState.FAILED, "misconfigured"),
        (CommitmentAnswer("t", frozenset({"1.2"}), {"1.2": 0x0112}), DeliveryState.PENDING, "unproven"),
        (CommitmentAnswer("t", frozenset({"9.9"})), DeliveryState.SENT, "unproven"),
    ],
)
def test_each_answer_means_what_the_standard_says(answer: CommitmentAnswer, state: DeliveryState, cause: str) -> None:
    given = verdict(Awaited(1, 1, "archive", "1.2", DeliveryState.SENT, "seg"), answer, 0.0)
    assert given is not None
    assert (given.state, given.cause) == (state, cause)


def test_our_listener_keeps_what_a_pacs_reports_on_an_association_of_its_own(box: AnswerBox) -> None:
    """The PACS is the SCP there, by role selection; the answer is durable before it is told so."""
    reports = Reports(box, lambda _: None)
    entity = AE("OVERREAD")
    entity.supported_contexts = [report_context()]
    handlers = [(evt.EVT_N_EVENT_REPORT, reports.on_event_report)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    caller = AE("PACS")
    try:
        role = build_role(PUSH, scp_role=True)
        address = server.server_address
        line = caller.associate(*address, [build_context(PUSH)], "OVERREAD", ext_neg=[role])
        assert line.is_established
        answer, _ = line.send_n_event_report(report("2.25.7", ["1.2.3"], {}), 1, PUSH, "1.2.840.10008.1.20.1.1")
        assert answer.Status == 0x0000
        nameless = report("2.25.8", ["1.2.3"], {})
        del nameless.TransactionUID
        answer, _ = line.send_n_event_report(nameless, 1, PUSH, "1.2.840.10008.1.20.1.1", msg_id=2)
        assert answer.Status != 0x0000
        line.release()
        line.join(5)
    finally:
        entity.shutdown()
    ((path, kept),) = box.answers()
    assert kept == CommitmentAnswer("2.25.7", frozenset({"1.2.3"}))
    box.done(path, wholly=False)
    assert len(list(box.answers())) == 1
    box.done(path, wholly=True)
    assert list(box.answers()) == []


# read back


class Store:
    """A peer that stores, and gives back by C-GET and C-MOVE what it has, or what it was told to give instead."""

    def __init__(self) -> None:
        self.kept: dict[str, Dataset] = {}
        self.back: tuple[str, int] | None = None

    def handlers(self) -> list[Any]:
        return [(evt.EVT_C_STORE, self.store), (evt.EVT_C_GET, self.get), (evt.EVT_C_MOVE, self.move)]

    def store(self, event: Any) -> int:
        self.kept[str(event.request.AffectedSOPInstanceUID)] = dcmread(BytesIO(event.encoded_dataset()))
        return 0x0000

    def get(self, event: Any) -> Iterator[Any]:
        found = [self.kept[u] for u in [str(event.identifier.SOPInstanceUID)] if u in self.kept]
        yield len(found)
        for dataset in found:
            yield 0xFF00, dataset

    def move(self, event: Any) -> Iterator[Any]:
        if event.move_destination != "BACK" or self.back is None:
            yield None, None
            return
        syntaxes = {str(d.file_meta.TransferSyntaxUID) for d in self.kept.values()} or {ExplicitVRLittleEndian}
        yield *self.back, {"contexts": [build_context(SegmentationStorage, sorted(syntaxes))]}
        yield from self.get(event)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def archive(serve: Serve, store: Store) -> Callable[[str], Peer]:
    """Serve what ``store`` has in one transfer syntax; it sends back over contexts that we offered."""

    def start(syntax: str) -> Peer:
        contexts = {str(SegmentationStorage): (syntax,), GET_SOP_CLASS: IMPLICIT, MOVE_SOP_CLASS: IMPLICIT}
        peer = serve(store.handlers(), contexts, roles=(str(SegmentationStorage),))
        return peer

    return start


@pytest.mark.parametrize(
    ("own", "kept_in"),
    [
        (own, kept_in)
        for own in (ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
        for kept_in in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ],
)
def test_what_is_given_back_is_compared_whatever_its_encoding(  # noqa: PLR0917
    archive: Callable[[str], Peer], store: Store, make_result: Make, closed_port: int, own: str, kept_in: str
) -> None:
    made = [make_result(1, syntax=own, pad=70_000)]
    store.back = ("127.0.0.1", closed_port)
    peer = archive(kept_in)
    for witness in (by_get, Mover("BACK", closed_port, "127.0.0.1")):
        store.kept.clear()
        there = to(peer, witness)
        assert [p.standing for p in prove(there, made)] == [Standing.MISSING]
        assert [t.outcome for t in send(there, made).values()] == [Outcome.TAKEN]
        assert [p.standing for p in prove(there, made)] == [Standing.THERE]
        store.kept[made[0][0].sop_instance_uid].PatientID = "SOMEBODY ELSE"
        (altered,) = prove(there, made)
        assert (altered.standing, altered.reason) == (
            Standing.ALTERED,
            "what it keeps differs from what was sent in PatientID",
        )


def test_an_unknown_move_destination_is_told_with_the_remedy(
    archive: Callable[[str], Peer], make_result: Make, closed_port: int
) -> None:
    peer = archive(str(ExplicitVRLittleEndian))
    with pytest.raises(Rejected, match=f"does not know the move destination NOWHERE: add it .* {closed_port}"):
        prove(to(peer, Mover("NOWHERE", closed_port, "127.0.0.1")), [make_result(1)])


# TLS


def test_tls_with_a_certificate_of_our_own(serve: Serve, papers: Papers, make_result: Make) -> None:
    peer = serve(
        [(evt.EVT_C_STORE, lambda _: 0x0000)], ssl_context=papers.server_context(client_must_show=True)
    )
    mine = Tls(str(papers.ca), str(papers.client), str(papers.client_key)).context("archive")
    made = [make_result(1, pad=400_000)]
    assert [t.outcome for t in send(to(peer, unasked, tls=mine), made).values()] == [Outcome.TAKEN]
    for stranger in (Tls(str(papers.other_ca)), Tls(str(papers.ca))):
        with pytest.raises(Unreachable, match=r"TLS|broke off"):
            send(to(peer, unasked, tls=stranger.context("archive")), made)
    with pytest.raises(ConfigError, match=r"certificate .* cannot be used"):
        Tls(str(papers.ca), "nowhere.pem").context("archive")
