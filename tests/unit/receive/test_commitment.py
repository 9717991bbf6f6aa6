"""Storage commitment over real sockets, pynetdicom as the modality: only what is durable is promised, and who asked is
told once, on whichever association there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dimse_primitives import N_ACTION

from overread.domain.events import CommitmentJudged, CommitmentReported, CommitmentRequested, Event
from overread.domain.peer import Peer
from overread.ledger import Ledger, commitments, open_ledger, views
from overread.receive.commitment.docket import ASKED, Case, Docket
from overread.receive.commitment.judge import Judge
from overread.receive.commitment.reporter import Patience, Reporter
from overread.receive.commitment.request import PUSH_MODEL, WELL_KNOWN_INSTANCE
from overread.receive.commitment.service import Commitment
from overread.receive.index import Indexer
from overread.receive.upper_layer import FAST, STOCK
from overread.spool import Spool

from .conftest import CT, EXPLICIT, House, until

MR = "1.2.840.10008.5.1.4.1.1.4"
DAY_S = 86400.0
Slices = list[tuple[str, bytes]]


@dataclass
class Modality:
    """What was reported to it, and the port on which it listens; ``status`` is what it answers."""

    reports: list[tuple[int, Dataset]] = field(default_factory=list)
    roles: list[tuple[Any, Any]] = field(default_factory=list)
    status: int = 0
    port: int = 0

    def take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return self.status, None

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        return [(evt.EVT_N_EVENT_REPORT, self.take)]


@dataclass
class Books:
    """The ledger's side: what the clerk's process runs."""

    house: House
    docket: Docket
    ledger: Ledger
    indexer: Indexer
    judge: Judge


Begin = Callable[..., Books]


@pytest.fixture
def begin(house: Callable[..., House], tmp_path: Path) -> Iterator[Begin]:
    """``begin(**options)``: a listener with storage commitment, an indexer and a judge."""
    stops: list[Callable[[], object]] = []

    def start(
        peers: dict[str, Peer] | None = None,
        *,
        judge: bool = True,
        most: int = 5000,
        layers: Any = FAST,
        **patience: float,
    ) -> Books:
        events: list[Event] = []
        url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        docket = Docket(tmp_path / "docket")
        reporter = Reporter(docket, peers or {}, "OVERREAD", Patience(**{"answer_s": 3.0, **patience}), events.append)
        service = Commitment(docket, reporter, most, events.append)
        spool = Spool(tmp_path / "spool-0")
        indexer = Indexer(spool, lambda: open_ledger(url), events.append)
        made = house(commitment=service, layers=layers, keep=lambda receipt: indexer.add(receipt.arrival()))
        made.events = events
        indexer.start()
        assert until(indexer.ready.is_set)
        reporter.start()
        ledger = open_ledger(url)
        judging = Judge(
            docket, spool, lambda: open_ledger(url), behind=indexer.check, keep_s=7 * DAY_S, herald=events.append
        )
        if judge:
            judging.start()
            stops.append(judging.stop)
        stops.extend([reporter.stop, indexer.stop, ledger.close])
        return Books(made, docket, ledger, indexer, judging)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def modality() -> Iterator[Callable[..., Modality]]:
    """``modality()``: a listener for reports."""
    servers: list[Any] = []

    def start(status: int = 0) -> Modality:
        made = Modality(status=status)
        entity = AE("CT1")
        entity.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)

        def established(event: Any) -> None:
            made.roles += [(c.as_scu, c.as_scp) for c in event.assoc.accepted_contexts]

        handlers = [*made.handlers, (evt.EVT_ESTABLISHED, established)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        made.port = server.server_address[1]
        servers.append(server)
        return made

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def associate() -> Iterator[Callable[..., Any]]:
    """``associate(house, modality)``: an association for CT, MR and storage commitment."""
    called: list[Any] = []

    def call(house: House, to: Modality, *, roles: bool = True) -> Any:
        entity = AE("CT1")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        contexts = [build_context(CT, EXPLICIT), build_context(MR, EXPLICIT), build_context(PUSH_MODEL)]
        ext = [build_role(PUSH_MODEL, scu_role=True)] if roles else []
        port = house.listener.port
        line = entity.associate("127.0.0.1", port, contexts, "OVERREAD", ext_neg=ext, evt_handlers=to.handlers)
        assert line.is_established
        called.append(line)
        return line

    yield call
    for line in called:
        if line.is_established:
            line.release()
        line.join(5)


def request(transaction: str, references: list[tuple[str, str]]) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        asked.ReferencedSOPSequence.append(item)
    return asked


def ask(line: Any, transaction: str, references: list[tuple[str, str]], **other: Any) -> int:
    """Ask for commitment; returns the N-ACTION status."""
    data = other.get("data", request(transaction, references))
    instance = other.get("instance", WELL_KNOWN_INSTANCE)
    status, _ = line.send_n_action(data, other.get("action", 1), PUSH_MODEL, instance)
    return int(status.get("Status", -1))


def sent(line: Any, slices: Slices, store: Callable[..., int]) -> list[tuple[str, str]]:
    for uid, data in slices:
        assert store(line, data, uid) == 0
    return [(CT, uid) for uid, _ in slices]


def failed(information: Dataset) -> dict[str, int]:
    return {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in information.get("FailedSOPSequence", [])}


def good(information: Dataset) -> list[tuple[str, str]]:
    items = information.get("ReferencedSOPSequence", [])
    return [(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in items]


@pytest.mark.parametrize(("layers", "roles"), [(FAST, True), (FAST, False), (STOCK, True)])
def test_what_was_stored_is_committed_on_the_same_association(
    begin: Begin, associate: Any, store: Any, ct_bytes: Slices, *, layers: Any, roles: bool
) -> None:
    """The instances came a moment ago: the ledger is waited for. The association serves on while the report is out."""
    books, to = begin(layers=layers), Modality()
    line = associate(books.house, to, roles=roles)
    references = sent(line, ct_bytes[:5], store)
    assert ask(line, "1.2.3", references) == 0
    assert until(lambda: to.reports, 10)
    ((event, told),) = to.reports
    assert (event, told.TransactionUID, good(told)) == (1, "1.2.3", references)
    assert "FailedSOPSequence" not in told
    assert sent(line, ct_bytes[5:7], store)
    assert until(lambda: commitments.counts(books.ledger) == {"REPORTED": 1})
    assert not books.docket.cases()
    assert [(e.calling_ae, e.outcome) for e in books.house.said(CommitmentReported)] == [("CT1", "same-association")]
    assert [(e.status, e.instances) for e in books.house.said(CommitmentRequested)] == [(0, 5)]
    time.sleep(0.5)
    assert len(to.reports) == 1


def test_who_releases_at_once_is_told_on_a_new_association(
    begin: Begin, associate: Any, modality: Any, store: Any, ct_bytes: Slices
) -> None:
    """On which overread proposes to be the SCP (PS3.4 Section J.3.3)."""
    to = modality()
    books = begin({"CT1": Peer("CT1", "127.0.0.1", to.port)})
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:3], store)
    assert ask(line, "1.2.3", references) == 0
    line.release()
    assert until(lambda: to.reports, 10)
    assert [(event, good(told)) for event, told in to.reports] == [(1, references)]
    assert to.roles == [(True, False)]  # the modality is the SCU on an association that it has accepted
    assert until(lambda: commitments.counts(books.ledger) == {"REPORTED": 1})


def test_who_hangs_up_and_has_no_address_is_said_to_be_unknown(
    begin: Begin, associate: Any, store: Any, ct_bytes: Slices
) -> None:
    from overread.console.words import explain, status

    books, to = begin(), Modality()
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:2], store)
    assert ask(line, "1.2.3", references) == 0
    line.abort()
    assert until(lambda: commitments.counts(books.ledger) == {"GAVE_UP": 1}, 10)
    assert [e.outcome for e in books.house.said(CommitmentReported)] == ["nowhere"]
    study = views.recent_studies(books.ledger, 1)[0].uid
    told = "\n".join(explain(views.story(books.ledger, study)))  # type: ignore[arg-type]
    assert "2 of 2 instances committed; gave up" in told
    assert "receive.commitment.peers has no address of it" in told
    assert "kept at least until" in told
    assert "commitments 1 GAVE_UP" in list(status(books.ledger, time.time()))


def test_a_modality_that_is_down_is_told_when_it_is_up(
    begin: Begin, associate: Any, modality: Any, store: Any, ct_bytes: Slices
) -> None:
    to = modality(status=0x0110)
    books = begin({"CT1": Peer("CT1", "127.0.0.1", to.port)}, first_retry_s=0.1)
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:1], store)
    assert ask(line, "1.2.3", references) == 0
    line.release()
    assert until(lambda: len(to.reports) >= 2, 10)
    assert commitments.counts(books.ledger) == {"PENDING": 1}
    to.status = 0
    assert until(lambda: commitments.counts(books.ledger) == {"REPORTED": 1}, 10)


def test_it_is_given_up_after_the_time_that_settings_give(
    begin: Begin, associate: Any, modality: Any, store: Any, ct_bytes: Slices
) -> None:
    books = begin({"CT1": Peer("CT1", "127.0.0.1", 1)}, first_retry_s=0.1, give_up_s=0.5)
    line = associate(books.house, Modality())
    assert ask(line, "1.2.3", sent(line, ct_bytes[:1], store)) == 0
    line.release()
    assert until(lambda: commitments.counts(books.ledger) == {"GAVE_UP": 1}, 10)
    assert {e.outcome for e in books.house.said(CommitmentReported)} == {"unreachable", "gave-up"}


def test_what_is_missing_of_another_class_or_damaged_is_not_committed(
    begin: Begin, associate: Any, store: Any, ct_bytes: Slices
) -> None:
    books, to = begin(), Modality()
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:5], store)
    assert until(lambda: len(books.house.stored()) == 5)
    (whole, damaged, shorter, lost, other) = [uid for _, uid in references]
    by_uid = {}
    assert until(lambda: len(commitments.held(books.ledger, [uid for _, uid in references])) == 5)
    for uid, found in commitments.held(books.ledger, [uid for _, uid in references]).items():
        by_uid[uid] = books.house.spool.absolute(found[0].path)
    raw = bytearray(by_uid[damaged].read_bytes())
    raw[-1] ^= 1
    by_uid[damaged].write_bytes(raw)
    by_uid[shorter].write_bytes(by_uid[shorter].read_bytes()[:-2])
    by_uid[lost].unlink()
    references[4] = (MR, other)
    assert ask(line, "1.2.3", [*references, (CT, "1.2.3.4.5")]) == 0
    assert until(lambda: to.reports, 10)
    ((event, told),) = to.reports
    assert (event, good(told)) == (2, [(CT, whole)])
    assert failed(told) == {damaged: 0x0110, shorter: 0x0110, lost: 0x0110, other: 0x0119, "1.2.3.4.5": 0x0112}
    assert [(e.committed, e.failed) for e in books.house.said(CommitmentJudged)] == [(1, 5)]


def test_what_is_only_in_quarantine_is_not_committed(
    begin: Begin, associate: Any, store: Any, ct_bytes: Slices
) -> None:
    books, to = begin(), Modality()
    line = associate(books.house, to)
    uid, data = ct_bytes[0]
    assert store(line, data[:-100], uid) == 0xC000
    assert ask(line, "1.2.3", [(CT, uid)]) == 0
    assert until(lambda: to.reports, 10)
    assert failed(to.reports[0][1]) == {uid: 0x0112}


def test_of_disputed_content_all_must_be_there(begin: Begin, associate: Any, store: Any, ct_bytes: Slices) -> None:
    """Whoever asks may mean either of the two."""
    books, to = begin(), Modality()
    line = associate(books.house, to)
    uid, data = ct_bytes[0]
    other = bytearray(data)
    other[-1] ^= 1
    assert store(line, data, uid) == 0
    assert until(lambda: commitments.held(books.ledger, [uid]))
    first = commitments.held(books.ledger, [uid])[uid][0].path
    assert store(line, bytes(other), uid) == 0
    assert until(lambda: len(commitments.held(books.ledger, [uid])[uid]) == 2)
    assert ask(line, "1.2.3", [(CT, uid)]) == 0
    assert until(lambda: len(to.reports) == 1, 10)
    books.house.spool.absolute(first).unlink()
    assert ask(line, "1.2.4", [(CT, uid)]) == 0
    assert until(lambda: len(to.reports) == 2, 10)
    assert [event for event, _ in to.reports] == [1, 2]


def test_the_same_request_again_is_answered_again_and_another_under_its_number_is_not_promised(
    begin: Begin, associate: Any, store: Any, ct_bytes: Slices
) -> None:
    books, to = begin(), Modality()
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:2], store)
    for number, asked in enumerate([references, references, references[:1]], 1):
        assert ask(line, "1.2.3", asked) == 0
        assert until(lambda number=number: len(to.reports) == number, 10)
    assert [event for event, _ in to.reports] == [1, 1, 2]
    assert failed(to.reports[2][1]) == {references[0][1]: 0x0131}


def test_thousands_of_instances_in_one_request(begin: Begin, associate: Any, store: Any, ct_bytes: Slices) -> None:
    books, to = begin(), Modality()
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:3], store)
    unknown = [(CT, f"1.2.840.99999.{n}") for n in range(1997)]
    assert ask(line, "1.2.3", [*references, *unknown]) == 0
    assert until(lambda: to.reports, 20)
    assert good(to.reports[0][1]) == references
    assert failed(to.reports[0][1]) == dict.fromkeys((uid for _, uid in unknown), 0x0112)


def without(keyword: str) -> Dataset:
    asked = request("1.2.3", [(CT, "1.2.3.4")])
    holder = asked if keyword in asked else asked.ReferencedSOPSequence[0]
    del holder[keyword]
    return asked


def with_value(keyword: str, value: Any) -> Dataset:
    asked = request("1.2.3", [(CT, "1.2.3.4")])
    holder = asked if keyword in asked else asked.ReferencedSOPSequence[0]
    holder[keyword].value = value
    return asked


@pytest.mark.parametrize(
    ("improper", "status"),
    [
        ({"instance": "1.2.3"}, 0x0112),
        ({"action": 2}, 0x0123),
        ({"data": None}, 0x0120),
        ({"data": without("TransactionUID")}, 0x0120),
        ({"data": without("ReferencedSOPSequence")}, 0x0120),
        ({"data": without("ReferencedSOPClassUID")}, 0x0120),
        ({"data": without("ReferencedSOPInstanceUID")}, 0x0120),
        ({"data": with_value("TransactionUID", "")}, 0x0115),
        ({"data": with_value("ReferencedSOPSequence", [])}, 0x0115),
        ({"data": with_value("ReferencedSOPInstanceUID", "")}, 0x0115),
        ({"data": request("1.2.3", [(CT, "1.2"), (MR, "1.2")])}, 0x0115),
        ({"data": request("1.2.3", [(CT, f"1.2.{n}") for n in range(11)])}, 0x0213),
    ],
)
def test_improper_requests_are_answered_as_ps37_says(
    begin: Begin, associate: Any, improper: dict[str, Any], status: int
) -> None:
    books = begin(most=10)
    line = associate(books.house, Modality())
    assert ask(line, "1.2.3", [(CT, "1.2.3.4")], **improper) == status
    assert not books.docket.cases()
    assert line.is_established
    assert ask(line, "1.2.3", [(CT, "1.2.3.4")]) == 0


def test_an_action_information_of_garbage_is_refused(begin: Begin, associate: Any) -> None:
    from io import BytesIO

    books = begin()
    line = associate(books.house, Modality())
    context = next(c for c in line.accepted_contexts if c.abstract_syntax == PUSH_MODEL)
    asked = N_ACTION()
    asked.MessageID, asked.ActionTypeID = 7, 1
    asked.RequestedSOPClassUID, asked.RequestedSOPInstanceUID = PUSH_MODEL, WELL_KNOWN_INSTANCE
    asked.ActionInformation = BytesIO(b"\x08\x00\x99\x11\xff\xff\xff\x7fgarbage")
    line._reactor_checkpoint.clear()
    assert until(lambda: line._is_paused)
    line.dimse.send_msg(asked, context.context_id)
    _, answer = line.dimse.get_msg(block=True)
    line._reactor_checkpoint.set()
    assert answer.Status in (0x0120, 0x0212)


def test_nothing_is_acknowledged_that_could_not_be_written_down(
    begin: Begin, associate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    books = begin()
    line = associate(books.house, Modality())
    with monkeypatch.context() as patch:
        patch.setattr("overread.receive.commitment.docket.write_durable", fail)
        assert ask(line, "1.2.3", [(CT, "1.2.3.4")]) == 0x0213
    assert not books.docket.cases()


def test_a_request_survives_the_process_that_took_it(
    begin: Begin, associate: Any, modality: Any, store: Any, ct_bytes: Slices
) -> None:
    """Reporters that never saw the association find the case in the docket, and one of them reports it, once."""
    to = modality()
    peers = {"CT1": Peer("CT1", "127.0.0.1", to.port)}
    books = begin(peers, judge=False)
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:2], store)
    assert ask(line, "1.2.3", references) == 0
    (case,) = books.docket.cases()
    assert case.state == ASKED
    line.release()
    assert books.docket.advance(case, replace(case, owner=2**22 + 1))  # no process has that number
    tell = books.house.events.append
    later = [Reporter(Docket(books.docket.root), peers, "OVERREAD", Patience(3.0), tell) for _ in range(3)]
    for reporter in later:
        reporter.start()
    books.judge.start()
    assert until(lambda: commitments.counts(books.ledger) == {"REPORTED": 1}, 10)
    time.sleep(0.5)
    books.judge.stop()
    for reporter in later:
        reporter.stop()
    assert [(event, good(told)) for event, told in to.reports] == [(1, references)]
    assert [e.outcome for e in books.house.said(CommitmentReported)] == ["new-association"]


def test_retention_keeps_what_was_committed(begin: Begin, associate: Any, store: Any, ct_bytes: Slices) -> None:
    from overread.schedule.retention import Limits, retire

    books, to = begin(), Modality()
    line = associate(books.house, to)
    references = sent(line, ct_bytes[:2], store)
    assert ask(line, "1.2.3", references) == 0
    assert until(lambda: to.reports, 10)
    with books.ledger.write() as session:
        from sqlalchemy import text

        session.connection().execute(text("UPDATE study SET state = 'COMPLETE', completed_at = 1, routed_revision = 1"))
    now = time.time()
    squeezed = Limits(keep_s=0.0, max_bytes=1)
    assert retire(books.ledger, books.house.spool, squeezed, now + 6.9 * DAY_S) == 0
    assert len(books.house.stored()) == 2
    assert retire(books.ledger, books.house.spool, squeezed, now + 7.1 * DAY_S) == 1
    assert books.house.stored() == []
    assert ask(line, "1.2.4", references) == 0
    assert until(lambda: len(to.reports) == 2, 10)
    assert failed(to.reports[1][1]) == {uid: 0x0112 for _, uid in references}


def test_a_case_is_claimed_by_one_at_a_time_and_asking_again_wins(tmp_path: Path) -> None:
    docket = Docket(tmp_path / "docket")
    case = Case("CT1", "1.2", {"1.2.3": CT}, 1.0)
    docket.file(case)
    (seen,) = docket.cases()
    with docket.claim(seen) as mine, Docket(docket.root).claim(seen) as other:
        assert (mine, other) == (True, False)
        docket.file(replace(case, asked_at=2.0))
        assert not docket.advance(seen, replace(seen, state="told"))
    assert [c.asked_at for c in docket.cases()] == [2.0]
    (docket.root / "broken.json").write_text("{")
    assert len(docket.cases()) == 1
