"""The fault matrix of delivery: whatever a PACS or the wire does, each result ends in the PACS exactly once and proven,
or in the dead letters with the reason. Each row is a test; the table is printed at the end."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from house import dataset_bytes
from outgoing import fill, rows
from proxy import Proxy, Wire
from pynetdicom import AE, evt

from overread.deliver.auth import Credentials
from overread.deliver.commitment import Committer, take_answers
from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.outbox import Outbox
from overread.deliver.patience import Patience
from overread.deliver.proofs import by_find, unasked
from overread.deliver.retrieving import Mover, by_get
from overread.deliver.round import Terms
from overread.deliver.stow import Server, StowDestination
from overread.deliver.tls import Tls
from overread.domain.peer import Peer
from overread.domain.result import Result
from overread.ledger import Ledger, open_ledger
from overread.ledger.tables import DeliveryRow
from overread.receive.commitment_report import Reports
from overread.receive.commitment_report import context as report_context
from overread.simulate.mischief import Fault, Mishap
from overread.simulate.pacs import Pacs
from overread.simulate.web import Web
from overread.spool.answers import AnswerBox

pytestmark = pytest.mark.alone

RESULTS, AT_ONCE = 4, 16
TIMEOUT_S = 2.0
FOR_EVER_S = 7 * 86400.0
PROVEN = "proven"
MIGRATING = threading.Lock()  # what migrates a ledger is made for one at a time in a process
M = Mishap


@dataclass(frozen=True)
class Row:
    """``expected``: proven, or ``dead: `` and what the reason of the dead letters says, ``may_be_there`` although it is
    dead. ``most``: how often an object may come. ``more``: what its reason says although it is proven."""

    fault: str
    faults: tuple[Fault, ...] = ()
    expected: str = PROVEN
    way: str = "c-find"
    wire: Wire | None = None
    most: int = 3
    give_up_s: float = FOR_EVER_S
    more: str = ""
    may_be_there: bool = False

    def __str__(self) -> str:
        return f"{self.way}: {self.fault}"


def each_status() -> Iterator[Row]:
    """What each status of a C-STORE response means (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    for status in (0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213):
        yield Row(f"answers 0x{status:04X} twice", (Fault(M.ANSWER, status, times=2),), most=3)
    for status, says in (
        (0xA900, "does not match the SOP class"),
        (0xA9FF, "does not match the SOP class"),
        (0xC000, "cannot understand"),
        (0xC123, "cannot understand"),
        (0x0117, "invalid SOP instance"),
        (0x0122, "configuration fault.*have it enabled there"),
        (0x0124, "configuration fault.*have the calling AE title.*allowed to store there"),
    ):
        fault = Fault(M.ANSWER, status)
        yield Row(f"answers 0x{status:04X}", (fault,), f"dead: 0x{status:04X}.*{says}", most=1)
    for status in (0xB000, 0xB006, 0xB007):
        fault = Fault(M.ANSWER, status)
        yield Row(f"answers 0x{status:04X}", (fault,), most=1, more=f"stored with a warning.*0x{status:04X}")
    yield Row("answers 0x0111, and holds it", (Fault(M.ANSWER, 0x0111),), most=1)
    yield Row("answers 0x0111, and does not hold it", (Fault(M.ANSWER, 0x0111, times=2), Fault(M.LOSE, times=2)))


DIMSE = (
    Row("nothing", most=1),
    Row("refuses associations, 3 times", (Fault(M.REFUSE, times=3),), most=1),
    Row("stalls after accept", (Fault(M.STALL_ACCEPTED, seconds=5, times=1),), most=2),
    Row("stalls mid-transfer", (Fault(M.STALL_TRANSFER, seconds=5, spare=1, times=1),)),
    Row("stalls before the response", (Fault(M.STALL_RESPONSE, seconds=5, spare=1, times=1),)),
    Row("aborts after accept", (Fault(M.ABORT_ACCEPTED, times=1),), most=1),
    Row("aborts mid-transfer", (Fault(M.ABORT_TRANSFER, spare=1, times=2),)),
    Row("aborts before the response", (Fault(M.ABORT_RESPONSE, spare=1, times=2),)),
    Row("keeps it and aborts, then 0x0111", (Fault(M.ABORT_RESPONSE, times=1), Fault(M.ANSWER, 0x0111, spare=1))),
    Row("says success, loses every 2nd", (Fault(M.LOSE, every=2, times=3),)),
    Row("is down for 1 s", (Fault(M.DOWN, for_s=1.0),), most=1),
    Row("goes down on the way", (Fault(M.SLOW, seconds=0.05, for_s=1.5), Fault(M.DOWN, after_s=0.3, for_s=1.0))),
    Row("is slow", (Fault(M.SLOW, seconds=0.05, times=20),), most=1),
    Row("has a full disk for 1 s", (Fault(M.DISK_FULL, for_s=1.0),), most=9),
    Row("has a full disk for ever", (Fault(M.DISK_FULL),), "dead: given up after.*0xA700", give_up_s=1.0, most=20),
    Row("is never there", (Fault(M.DOWN),), "dead: given up after.*(nothing listens|broke off)", give_up_s=1.0, most=0),
    Row("does not answer queries for a while", (Fault(M.NO_QUERIES, times=2),), most=1),
    Row("stalls at a query", (Fault(M.STALL_QUERY, seconds=5, times=1),), most=1),
    *each_status(),
)
COMMITMENT = (
    Row("nothing", way="commitment", most=1),
    Row("commits 1 s late", (Fault(M.COMMIT_LATE, seconds=1.0),), way="commitment", most=1),
    Row("never commits", (Fault(M.COMMIT_NEVER),), way="commitment, c-find", most=1),
    Row("never commits once", (Fault(M.COMMIT_NEVER, times=1),), way="commitment", most=1),
    Row("commits nothing once", (Fault(M.COMMIT_DENY, times=1),), way="commitment", most=2),
    Row("says success, loses every 2nd", (Fault(M.LOSE, every=2, times=2),), way="commitment"),
    Row("cannot be asked for a while", (Fault(M.COMMIT_REFUSE, 0x0110, times=2),), way="commitment", most=1),
    Row(
        "does not know commitment",
        (Fault(M.COMMIT_REFUSE, 0x0122),),
        "dead: configuration fault.*cannot be asked by storage commitment",
        way="commitment",
        most=1,
        may_be_there=True,
    ),
)
WIRE = (
    Row("connections are reset", wire=Wire(3, turned_away=True), most=1),
    Row("cut in the request for association", wire=Wire(cut_up=100), most=1),
    Row("cut in an object", wire=Wire(cut_up=6_000), most=2),
    Row("cut in the answers", wire=Wire(cut_down=700), most=2),
    Row("black hole towards it", wire=Wire(stall_up=6_000), most=2),
    Row("black hole on the way back", wire=Wire(stall_down=700), most=2),
    Row("a trickle", wire=Wire(2, piece=1_000, pause_s=0.01), most=2),
    Row("a byte is changed on the way", way="c-get", wire=Wire(flip_up=9_000), most=2),
    Row("a byte is changed on the way", way="c-move", wire=Wire(flip_up=9_000), most=2),
)
STOW = (
    Row("nothing", way="qido", most=1),
    Row("nothing", way="wado", most=1),
    Row("refuses (503), 3 times", (Fault(M.REFUSE, times=3),), way="qido", most=1),
    Row("stalls before it reads", (Fault(M.STALL_ACCEPTED, seconds=5, times=1),), way="qido", most=2),
    Row("stalls before the answer", (Fault(M.STALL_RESPONSE, seconds=5, times=1),), way="qido", most=2),
    Row("cut off mid-transfer", (Fault(M.ABORT_TRANSFER, times=2),), way="qido"),
    Row("cut off before the answer", (Fault(M.ABORT_RESPONSE, times=2),), way="qido"),
    Row("says 200, loses every 2nd", (Fault(M.LOSE, every=2, times=3),), way="qido"),
    Row("is down for 1 s", (Fault(M.DOWN, for_s=1.0),), way="qido", most=1),
    Row("is slow", (Fault(M.SLOW, seconds=0.2, times=5),), way="qido", most=1),
    Row("has a full disk for 1 s", (Fault(M.DISK_FULL, for_s=1.0),), way="wado", most=9),
    Row("does not answer queries for a while", (Fault(M.NO_QUERIES, times=2),), way="wado", most=1),
    Row("stalls at a query", (Fault(M.STALL_QUERY, seconds=5, times=1),), way="qido", most=1),
    Row("fails with 0xA700 twice", (Fault(M.ANSWER, 0xA700, times=2),), way="qido"),
    Row("fails with 0xA900", (Fault(M.ANSWER, 0xA900),), "dead: 0xA900.*does not match", way="qido", most=1),
    Row("fails with 0xC000", (Fault(M.ANSWER, 0xC000),), "dead: 0xC000.*cannot understand", way="qido", most=1),
    Row("fails with 0x0122", (Fault(M.ANSWER, 0x0122),), "dead: configuration fault", way="qido", most=1),
    Row("fails with 0x0124", (Fault(M.ANSWER, 0x0124),), "dead: configuration fault", way="qido", most=1),
    Row("warns with 0xB000", (Fault(M.ANSWER, 0xB000),), way="qido", most=1, more="stored with a warning.*0xB000"),
    Row("fails with 0x0111, and holds it", (Fault(M.ANSWER, 0x0111),), way="qido", most=1),
    Row("a byte is changed on the way", way="wado", wire=Wire(flip_up=3_000), most=2),
    Row("cut in the answer", way="wado", wire=Wire(cut_down=100), most=2),
)
MATRIX = (*DIMSE, *COMMITMENT, *WIRE, *STOW)


@dataclass(frozen=True)
class Seen:
    """What became of one row: its deliveries, how often each object came, and what the PACS holds of what was made."""

    ended: tuple[DeliveryRow, ...]
    came: dict[str, int]
    held: dict[str, list[bytes]]
    made: dict[str, bytes]
    seconds: float

    def __str__(self) -> str:
        states = ", ".join(f"{n} {state.lower()}" for state, n in Counter(r.state for r in self.ended).items())
        return f"{states}; came {sum(self.came.values())} ×, held {sum(map(len, self.held.values()))}"


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Row, Seen]]:
    """All rows that are asked for, played beside one another, for they mostly wait; printed as a table at the end."""
    ours = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    wanted = [spec.params["row"] for spec in ours if spec is not None]
    data = tmp_path_factory.mktemp("start") / "data"
    start = Start(data, fill(data, 2, RESULTS // 2, {"there": ("seg", "sr")}))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = pool.map(lambda row: play(row, tmp_path_factory.mktemp("row"), start), wanted)
        told = dict(zip(wanted, played, strict=True))
    yield told
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n{'fault':<58} | {'expected':<44} | seen")
        for row, saw in told.items():
            print(f"{row!s:<58} | {row.expected[:44]:<44} | {saw}, {saw.seconds:.1f} s")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", MATRIX, ids=str)
def test_each_result_ends_in_the_pacs_exactly_once_or_in_the_dead_letters(row: Row, seen: dict[Row, Seen]) -> None:
    """Two jobs of two results each. Proven: the PACS holds the same bytes, in one place each, and nothing else."""
    saw = seen[row]
    states, reasons = {r.state for r in saw.ended}, {r.reason for r in saw.ended}
    if row.expected == PROVEN:
        assert states == {"VERIFIED"}, (saw, reasons)
        assert saw.held == {uid: [content] for uid, content in saw.made.items()}
        assert all(re.search(row.more, reason) for reason in reasons), reasons
    else:
        assert states == {"FAILED"}, (saw, reasons)
        assert all(re.search(row.expected.removeprefix("dead: "), reason) for reason in reasons), reasons
        assert bool(saw.held) is row.may_be_there
    assert max(saw.came.values(), default=0) <= row.most, saw


@dataclass(frozen=True)
class Start:
    """A data folder as it is before a row is played: two jobs whose results are to go ``there``."""

    folder: Path
    made: list[Result]


def play(row: Row, folder: Path, start: Start) -> Seen:
    """One row from its beginning to its end."""
    began = time.monotonic()
    with Stage(folder, row, start) as stage:
        ended = stage.play()
        held: dict[str, list[bytes]] = {}
        for path in stage.pacs.files():
            held.setdefault(path.stem, []).append(dataset_bytes(path))
        made = {r.sop_instance_uid: dataset_bytes(stage.spool / r.path) for r in stage.made}
        return Seen(tuple(ended), dict(stage.pacs.received), held, made, time.monotonic() - began)


class Stage:
    """A PACS, perhaps behind a bad wire, an outbox with results for it, and who hears its storage commitment."""

    def __init__(self, folder: Path, row: Row, start: Start) -> None:
        self.folder, self.row, self.spool = folder, row, folder / "data" / "spool"
        shutil.copytree(start.folder, folder / "data")
        self.made = start.made
        with MIGRATING:
            self.ledger: Ledger = open_ledger(f"sqlite:///{folder / 'data' / 'ledger.sqlite'}")
        self.box = AnswerBox(folder / "answers")
        self.pacs = Pacs(folder / "pacs")
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        self._open.callback(self.ledger.close)
        back = self._open.enter_context(_listener(self.box))
        self.pacs.peers |= {"OVERREAD": Peer("OVERREAD", "127.0.0.1", back), "BACK": Peer("BACK", "127.0.0.1", 0)}
        self._open.enter_context(self.pacs)
        self.pacs.mischief.add(*self.row.faults)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def play(self) -> list[DeliveryRow]:
        """Let the outbox work until nothing is on its way any more."""
        patience = Patience(0.1, 0.4, self.row.give_up_s)
        terms = Terms(patience, "test", timeout_s=TIMEOUT_S)
        there = self._destination()
        outbox = Outbox(self.ledger, there, terms, self.spool.joinpath, lambda _: None, concurrency=2)
        outbox.start()
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                take_answers(self.ledger, self.box, lambda _: None)
                if not {r.state for r in rows(self.ledger)} & {"PENDING", "SENT"}:
                    break
                time.sleep(0.05)
        finally:
            outbox.stop()
        return rows(self.ledger)

    def _destination(self) -> Any:
        way = self.row.way
        if way in ("qido", "wado"):
            port = self._behind(self._open.enter_context(Web(self.pacs)).port)
            url = f"http://127.0.0.1:{port}/dicom-web"
            server = Server(url, Credentials(), Tls(), TIMEOUT_S, False)
            return StowDestination("there", server, proof=way)
        peer = Peer("PACS", "127.0.0.1", self._behind(self.pacs.port))
        witness: Any = {"c-find": by_find, "c-get": by_get, "none": unasked}.get(way)
        if way.startswith("commitment"):
            witness = Committer(3.0, self.box, by_find if "c-find" in way else None)
        if way == "c-move":
            port = _free_port()
            self.pacs.peers["BACK"] = Peer("BACK", "127.0.0.1", port)
            witness = Mover("BACK", port)
        calling = Calling(peer, "OVERREAD", timeout_s=TIMEOUT_S, associations=2)
        return DimseDestination("there", calling, witness=witness)

    def _behind(self, port: int) -> int:
        return port if self.row.wire is None else self._open.enter_context(Proxy(port, self.row.wire)).port


def _free_port() -> int:
    from house import free_ports

    return free_ports(1)[0]


@contextlib.contextmanager
def _listener(box: AnswerBox) -> Iterator[int]:
    """Our listener, as far as a PACS tells it of storage commitment; its port."""
    entity = AE("OVERREAD")
    entity.supported_contexts = [report_context()]
    handlers = [(evt.EVT_N_EVENT_REPORT, Reports(box, lambda _: None).on_event_report)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield int(server.server_address[1])
    finally:
        entity.shutdown()


def test_every_mishap_stands_in_the_matrix() -> None:
    """What the simulated PACS can do wrong has been done to the outbox."""
    assert {fault.kind for row in MATRIX for fault in row.faults} == set(Mishap)
    assert not [t for t in threading.enumerate() if t.name.startswith("deliver ")]
