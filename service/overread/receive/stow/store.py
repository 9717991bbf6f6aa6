"""The parts of one request, one after the other, each into the intake; and what became of each."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from overread.domain.errors import Refused
from overread.domain.events import InstanceRefused
from overread.receive.intake import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, Claim, Intake, Reception, Verdict
from overread.receive.stow.body import CutOff, TooMuch
from overread.receive.stow.doorkeeper import Guest
from overread.receive.stow.finishing import Finishing
from overread.receive.stow.limits import Limits
from overread.receive.stow.media import read_media_type
from overread.receive.stow.multipart import Multipart, NotMultipart, Part
from overread.receive.stow.part10 import FileHead, Piece
from overread.receive.stow.wire import TooSlow

DICOM = "application/dicom"
SOP_CLASS, SOP_INSTANCE, TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
EMPTY = "the part is empty"
PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")


class Flaw(enum.Enum):
    """Failures that have an HTTP status of their own when nothing but them came."""

    NONE = enum.auto()
    MEDIA_TYPE = enum.auto()
    TOO_LARGE = enum.auto()


class End(enum.Enum):
    """How a body ended."""

    WHOLE = enum.auto()
    CUT_OFF = enum.auto()
    TOO_SLOW = enum.auto()
    TOO_MUCH = enum.auto()
    NOT_MULTIPART = enum.auto()


@dataclass(frozen=True)
class Outcome:
    """What became of one part: ``failure`` 0 is stored, else a Failure Reason (PS3.18 Table I.2-2).

    The UIDs are those of the file meta information, both empty when it has none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    failure: int
    reason: str = ""
    flaw: Flaw = Flaw.NONE


@dataclass
class Report:
    """What became of a request; ``reason`` says why it did not end as it should, ``size_bytes`` what came in parts."""

    outcomes: list[Outcome] = field(default_factory=list)
    end: End = End.WHOLE
    reason: str = ""
    size_bytes: int = 0

    @property
    def stored(self) -> list[Outcome]:
        """What is durable."""
        return [outcome for outcome in self.outcomes if not outcome.failure]

    @property
    def failed(self) -> list[Outcome]:
        """What is not."""
        return [outcome for outcome in self.outcomes if outcome.failure]


class Store:
    """Takes the parts of one request. ``study`` empty takes instances of any."""

    def __init__(self, intake: Intake, finishing: Finishing[Outcome], guest: Guest, study: str, limits: Limits) -> None:
        self._intake, self._finishing = intake, finishing
        self._guest, self._study, self._limits = guest, study, limits
        self._size = 0
        self._begun: dict[str, Future[Outcome]] = {}  # by SOP Instance UID, the last of each

    def take(self, multipart: Multipart) -> Report:
        """All parts; never raises for what comes. What was stored before a body broke off is in the report."""
        report = Report()
        outcomes: list[Future[Outcome]] = []
        try:
            for outcome in self._outcomes(multipart):
                outcomes.append(outcome)
        except NotMultipart as error:
            report.end, report.reason = End.NOT_MULTIPART, str(error)
        except CutOff as error:
            report.end, report.reason = End.CUT_OFF, str(error)
        except TooSlow:
            report.end, report.reason = End.TOO_SLOW, "the body came too slowly"
        except TooMuch as error:
            report.end, report.reason = End.TOO_MUCH, str(error)
        report.outcomes = [outcome.result() for outcome in outcomes]
        report.size_bytes = self._size
        return report

    def _outcomes(self, multipart: Multipart) -> Iterator[Future[Outcome]]:
        count = 0
        while (part := multipart.next_part()) is not None:
            count += 1
            if count > self._limits.parts:
                raise TooMuch(f"a request may have {self._limits.parts} parts; send fewer instances in one")
            yield self._taken(multipart, part)

    def _taken(self, multipart: Multipart, part: Part) -> Future[Outcome]:
        wrong, size = _unfit(part), 0
        taking = _Taking(self._intake, self._guest, self._study)
        try:
            for piece in multipart.pieces():
                size += len(piece)
                self._size += len(piece)
                if wrong is None and size > self._limits.part_bytes:
                    wrong = taking.too_large(piece, self._limits.part_bytes)
                elif wrong is None:
                    taking.write(piece)
        except BaseException:
            taking.abandon()
            raise
        if wrong is None:
            return self._finished(taking, multipart)
        self._intake.tell(InstanceRefused(self._guest.calling_ae, wrong.failure, wrong.reason))
        return _done(wrong)

    def _finished(self, taking: _Taking, multipart: Multipart) -> Future[Outcome]:
        whole, uid = multipart.terminated, taking.sop_instance_uid
        if uid in self._begun:  # which of two came last must be seen
            self._begun[uid].result()
        if multipart.closed or not whole:  # nothing comes after it that could be read meanwhile
            return _done(taking.finish(whole=whole))
        self._begun[uid] = self._finishing.begin(lambda: taking.finish(whole=whole))
        return self._begun[uid]


class _Taking:
    """One part on its way into the intake. Its file meta information says what a command says in DIMSE."""

    def __init__(self, intake: Intake, guest: Guest, study: str) -> None:
        self._intake, self._guest, self._study = intake, guest, study
        self._head = FileHead()
        self._reception: Reception | None = None
        self._fault: Verdict | None = None

    def write(self, piece: memoryview) -> None:
        """The next bytes of the part."""
        if self._reception is not None:
            self._reception.write([piece])
            return
        try:
            begun = self._head.take(piece)
        except Refused as error:
            self._condemn(str(error))
            self._begin([self._head.raw, piece[self._head.taken :]])
        else:
            if begun is not None:
                self._begin(begun)

    def finish(self, *, whole: bool) -> Outcome:
        """Judge and store it. ``whole`` false: nothing but the end of the body says that it ends here."""
        if self._reception is None and not self._head.raw:
            self._intake.tell(InstanceRefused(self._guest.calling_ae, CANNOT_UNDERSTAND, EMPTY))
            return Outcome("", "", CANNOT_UNDERSTAND, EMPTY)
        if self._reception is None:
            self._condemn(self._head.missing)
            self._begin([self._head.raw])
        assert self._reception is not None
        status, reason = self._reception.finish(fault=self._fault, whole=whole)
        return Outcome(*self._uids, status, reason)

    def too_large(self, piece: memoryview, most_bytes: int) -> Outcome:
        """It is given up at ``piece``, which may be the first to say what it is."""
        self.abandon()
        if self._reception is None:
            with contextlib.suppress(Refused):
                self._head.take(piece)
        reason = f"an instance may have {most_bytes} bytes"
        return Outcome(*self._uids, OUT_OF_RESOURCES, reason, Flaw.TOO_LARGE)

    @property
    def sop_instance_uid(self) -> str:
        """As its file meta information says, empty when that says none."""
        return self._uids[1]

    def abandon(self) -> None:
        """Leave nothing behind of what will not come."""
        if self._reception is not None:
            self._reception.abandon()

    def _begin(self, pieces: Sequence[Piece]) -> None:
        known = self._head.known
        calling_ae, called_ae = self._guest.calling_ae, self._guest.called_ae
        claim = Claim(*self._uids, known(TRANSFER_SYNTAX), calling_ae, called_ae, study_uid=self._study)
        self._reception = self._intake.begin(claim)
        self._reception.write(pieces)

    def _condemn(self, reason: str) -> None:
        # All of the part goes to quarantine then, as a data set that cannot be read: nothing else can be said of it.
        self._fault = Verdict(CANNOT_UNDERSTAND, reason)

    @property
    def _uids(self) -> tuple[str, str]:
        return self._head.known(SOP_CLASS), self._head.known(SOP_INSTANCE)


def _done(outcome: Outcome) -> Future[Outcome]:
    done: Future[Outcome] = Future()
    done.set_result(outcome)
    return done


def _unfit(part: Part) -> Outcome | None:
    """Why a part is not read at all. One that names no type is what the request says that its parts are (RFC 2387).

    Its ``transfer-syntax`` parameter decides nothing: the file meta information says how the data set is encoded, and
    whether it is, is seen when it is walked over.
    """
    if part.fault:
        return Outcome("", "", CANNOT_UNDERSTAND, part.fault)
    if read_media_type(part.fields.get("content-type") or DICOM).name != DICOM:
        return Outcome("", "", CANNOT_UNDERSTAND, f"a part is not {DICOM}", Flaw.MEDIA_TYPE)
    transfer = part.fields.get("content-transfer-encoding", "").lower()
    content = part.fields.get("content-encoding", "identity").lower()
    if transfer not in PLAIN_ENCODINGS or content != "identity":
        return Outcome("", "", CANNOT_UNDERSTAND, "a part is encoded; only plain bytes are taken", Flaw.MEDIA_TYPE)
    return None
