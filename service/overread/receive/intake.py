"""One instance comes in: written as it comes, judged when it is whole, durable before it is acknowledged."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overread.domain.errors import Refused
from overread.domain.events import InstanceRefused, Trouble
from overread.ports import Herald
from overread.receive.receipt import Receipt
from overread.spool import Spool
from overread.spool.draft import Draft
from overread.spool.header import Header, read_header
from overread.spool.limits import LIMITS, Limits
from overread.spool.meta import file_meta
from overread.spool.quarantine import Facts, Quarantine

SUCCESS = 0x0000
INVALID_INSTANCE = 0x0117  # PS3.7 Section 9.1.1.1.9
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
LONGEST_COMMENT = 64
UID = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True)
class Claim:
    """What the sender says of the data set that follows: of which class and UID it is, and how it is encoded.

    ``unwanted``: why none is taken from it at the moment, empty when nothing speaks against it. ``study_uid`` empty
    leaves open which study it is of.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str = ""
    unwanted: str = ""
    study_uid: str = ""


class Verdict(Exception):
    """An instance is not taken: the C-STORE status (PS3.4 Table B.2-1) and the reason, without values of patients."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Intake:
    """Where instances come in, however they come. ``keep`` is called for each one that is durable.

    ``room`` says whether the spool is below its high-water mark. Safe to use from many threads.
    """

    def __init__(
        self, spool: Spool, quarantine: Quarantine, room: Callable[[], bool], keep: Callable[[Receipt], None],
        tell: Herald, *, limits: Limits = LIMITS,
    ) -> None:
        self.spool = spool
        self.quarantine = quarantine
        self.room = room
        self.keep = keep
        self.tell = tell
        self.limits = limits

    def begin(self, claim: Claim) -> Reception:
        """Get ready for one data set; never raises."""
        return Reception(self, claim)


class Reception:
    """One data set as it comes. No method raises: whatever fails is answered by ``finish``.

    A data set that is not wanted is read to its end all the same, for its sender listens only then.
    """

    def __init__(self, intake: Intake, claim: Claim) -> None:
        self._intake = intake
        self._claim = claim
        self._started = time.monotonic()
        self._draft: Draft | None = None
        self._verdict: Verdict | None = None
        if claim.sop_instance_uid and not UID.fullmatch(claim.sop_instance_uid):
            self._verdict = Verdict(INVALID_INSTANCE, "the command's SOP Instance UID is not a valid UID")
        elif not intake.room():
            self._verdict = Verdict(OUT_OF_RESOURCES, "the spool is full")
        elif claim.unwanted:
            self._verdict = Verdict(OUT_OF_RESOURCES, claim.unwanted)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """The next bytes of the data set."""
        if self._verdict is not None:
            return
        try:
            if self._draft is None:
                self._draft = self._intake.spool.begin(self._meta())
            self._draft.write(*pieces)
            if self._draft.size_bytes > self._intake.limits.instance_bytes:
                most = f"{self._intake.limits.instance_bytes >> 20} MB"
                self._verdict = Verdict(OUT_OF_RESOURCES, f"the data set has more than {most}")
                self.abandon()
        except Exception as error:
            # The edge of the association: no fault may be taken for an acknowledgement.
            self._verdict = self._fault(error)
            self.abandon()

    def finish(self, *, fault: Verdict | None = None, whole: bool = True) -> tuple[int, str]:
        """Judge and store; returns the C-STORE status and an Error Comment, empty for success.

        ``fault`` is what its bearer knows to be wrong with it. ``whole`` false: nothing but the data set itself can
        prove that it did not end too early.
        """
        self.write(())
        try:
            if (verdict := self._verdict or fault) is not None:
                raise verdict
            self._store(whole=whole)
        except Verdict as verdict:
            return self._refuse(verdict)
        except Exception as error:
            # The same edge: "try again", and never an acknowledgement.
            return self._refuse(self._fault(error))
        return SUCCESS, ""

    def abandon(self) -> None:
        """The rest will not come, or is not wanted."""
        draft, self._draft = self._draft, None
        if draft is not None:
            try:
                draft.discard()
            except OSError as error:  # what stays in incoming/ is cleared at the next start
                self._intake.tell(Trouble("receive", type(error).__name__))

    def _meta(self) -> bytes:
        c = self._claim
        return file_meta(c.sop_class_uid, c.sop_instance_uid, c.transfer_syntax_uid, c.calling_ae, c.called_ae)

    def _store(self, *, whole: bool) -> None:
        draft, claim, intake = self._draft, self._claim, self._intake
        assert draft is not None
        header = self._judged(draft, whole=whole)
        stored = intake.spool.keep_draft(draft, header.uid("StudyInstanceUID"), claim.sop_instance_uid)
        self._draft = None
        seconds = time.monotonic() - self._started
        intake.keep(Receipt(header, stored, claim.calling_ae, time.time(), seconds, claim.called_ae))

    def _judged(self, draft: Draft, *, whole: bool) -> Header:
        claim = self._claim
        try:
            header = read_header(
                draft.read_at,
                draft.size_bytes,
                claim.transfer_syntax_uid,
                scratch=self._intake.spool.scratch,
                limits=self._intake.limits,
                pixels_due=not whole,
            )
        except Refused as error:
            raise Verdict(CANNOT_UNDERSTAND, str(error)) from error
        if header.uid("SOPInstanceUID") != claim.sop_instance_uid:
            raise Verdict(MISMATCH, "the data set's SOPInstanceUID is not the one in the command")
        if header.uid("SOPClassUID") != claim.sop_class_uid:
            raise Verdict(MISMATCH, "the data set's SOPClassUID is not the one in the command")
        if claim.study_uid and header.uid("StudyInstanceUID") != claim.study_uid:
            raise Verdict(MISMATCH, "the data set's StudyInstanceUID is not the one in the request")
        return header

    def _refuse(self, verdict: Verdict) -> tuple[int, str]:
        if verdict.status == CANNOT_UNDERSTAND and self._draft is not None:
            verdict = self._set_aside(self._draft, verdict)
        self.abandon()
        self._intake.tell(InstanceRefused(self._claim.calling_ae, verdict.status, verdict.reason))
        return verdict.status, verdict.reason[:LONGEST_COMMENT]

    def _set_aside(self, draft: Draft, verdict: Verdict) -> Verdict:
        claim = self._claim
        try:
            draft.seal()
            facts = Facts(
                at=time.time(),
                reason=verdict.reason,
                status=verdict.status,
                calling_ae=claim.calling_ae,
                sop_class_uid=claim.sop_class_uid,
                sop_instance_uid=claim.sop_instance_uid,
                transfer_syntax_uid=claim.transfer_syntax_uid,
                size_bytes=draft.size_bytes,
            )
            self._intake.quarantine.admit(draft.path, facts)
        except Exception as error:
            # Not even quarantine takes it: the sender keeps it and tries again.
            return self._fault(error)
        return verdict

    def _fault(self, error: Exception) -> Verdict:
        if isinstance(error, OSError):
            return Verdict(OUT_OF_RESOURCES, f"the spool does not take it: {error.strerror}")
        self._intake.tell(Trouble("receive", type(error).__name__))
        return Verdict(OUT_OF_RESOURCES, f"it could not be stored ({type(error).__name__})")
