"""Another AE as a destination: C-STORE, and C-FIND as the proof that it kept what it took."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,  # type: ignore[attr-defined,unused-ignore]
    Verification,  # type: ignore[attr-defined,unused-ignore]
)

from overread.deliver.association import Pair, accepted, association, name_of
from overread.deliver.status import Outcome, outcome_of
from overread.domain.errors import ConfigError, Rejected, Unreachable
from overread.domain.peer import Peer
from overread.domain.result import Result

PROOFS = ("c-find", "none")

_log = logging.getLogger(__name__)
FIND_SOP_CLASS = str(StudyRootQueryRetrieveInformationModelFind)
_ECHO = str(Verification)
NATIVE_TRANSFER_SYNTAXES = tuple(map(str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian)))
_TRANSCODABLE = (*NATIVE_TRANSFER_SYNTAXES, str(DeflatedExplicitVRLittleEndian))
_SLOWEST_BYTES_PER_S = 250_000.0
_LAST_MESSAGE_ID = 65535


class DimseDestination:
    """A PACS, or any AE that stores.

    ``proof`` is ``c-find`` (it is asked for every object) or ``none`` (its word is taken); ``timeout_s`` bounds each
    wait for the peer, longer for a large object by the time that 250 kB/s take.
    """

    def __init__(
        self, name: str, peer: Peer, own_ae_title: str, proof: str = "c-find", timeout_s: float = 30.0
    ) -> None:
        if proof not in PROOFS:
            raise ConfigError(f"destination {name!r}: proof is {proof!r}; it can be {' or '.join(PROOFS)}")
        self.name = name
        self.peer = peer
        self.own_ae_title = own_ae_title
        self.proof = proof
        self.timeout_s = timeout_s

    def send(self, results: Sequence[tuple[Result, Path]]) -> None:
        """Store the objects over one association, each with the data set bytes of its file.

        A peer that does not take the file's transfer syntax gets an uncompressed file as Explicit or Implicit VR Little
        Endian; nothing else is transcoded. Raises Unreachable (down, busy, silent) or Rejected (a SOP class, a transfer
        syntax or an object that it will not take); objects before the one that failed may have been stored.
        """
        if not results:
            return
        with self._associate(_proposals(results)) as line:
            agreed = [self._agree(result, accepted(line)) for result, _ in results]
            with tempfile.TemporaryDirectory(prefix="overread-") as folder:
                for number, ((result, path), syntax) in enumerate(zip(results, agreed, strict=True)):
                    file = path if syntax == result.transfer_syntax_uid else _transcode(path, syntax, Path(folder))
                    self._store(line, result, file, number % _LAST_MESSAGE_ID + 1)

    def prove(self, results: Sequence[Result]) -> bool:
        """Whether a C-FIND at IMAGE level returns the SOP Instance UID of every result; True without asking when
        ``proof`` is ``none``. Raises Unreachable, or Rejected when the peer cannot be asked at all."""
        if self.proof == "none" or not results:
            return True
        try:
            with self._associate([(FIND_SOP_CLASS, str(ImplicitVRLittleEndian))]) as line:
                return all(self._finds(line, result, number + 1) for number, result in enumerate(results))
        except Rejected as error:
            raise Rejected(
                f"destination {self.name!r} cannot be asked by C-FIND ({error}); "
                'set proof = "none", or give an AE that answers queries'
            ) from None

    def check(self) -> str:
        """C-ECHO. One line when it is answered; raises Unreachable with the reason and the remedy."""
        started = time.monotonic()
        try:
            with self._associate([(_ECHO, str(ImplicitVRLittleEndian))]) as line:
                status = line.send_c_echo().get("Status")
        except Rejected as error:
            raise Unreachable(f"destination {self.name!r} does not verify: {error}") from None
        if status != 0x0000:
            raise Unreachable(f"destination {self.name!r} did not answer C-ECHO with success; look at its log")
        took_ms = (time.monotonic() - started) * 1000
        return f"{self.name}: {self.peer.ae_title} at {self.peer.host}:{self.peer.port} answers ({took_ms:.0f} ms)"

    def _associate(self, contexts: Sequence[Pair]) -> Any:
        return association(self.peer, self.own_ae_title, contexts, timeout_s=self.timeout_s)

    def _agree(self, result: Result, pairs: set[Pair]) -> str:
        """The transfer syntax to send ``result`` in; Rejected when the peer accepted none for it."""
        for syntax in _syntaxes(result):
            if (result.sop_class_uid, syntax) in pairs:
                return syntax
        offered = ", ".join(name_of(s) for s in _syntaxes(result))
        raise Rejected(
            f"destination {self.name!r} does not accept {name_of(result.sop_class_uid)} ({offered}); "
            "have it enabled there, or leave this kind of result out"
        )

    def _store(self, line: Any, result: Result, path: Path, message_id: int) -> None:
        _config.STORE_SEND_CHUNKED_DATASET = True  # a path is sent as its bytes, without decoding
        try:
            line.dimse_timeout = self.timeout_s + path.stat().st_size / _SLOWEST_BYTES_PER_S
            answer = line.send_c_store(path, msg_id=message_id)
        except RuntimeError:
            raise self._silence(result) from None
        except (OSError, ValueError, AttributeError, InvalidDicomError) as error:
            reason = f"the file of {result.sop_instance_uid} cannot be sent ({type(error).__name__})"
            raise Rejected(f"{reason}; run the job again") from None
        status = answer.get("Status")
        if status is None:
            raise self._silence(result)
        self._judge(int(status), result)

    def _judge(self, status: int, result: Result) -> None:
        outcome, reason = outcome_of(status)
        text = f"destination {self.name!r} answered 0x{status:04X} for {result.sop_instance_uid}: {reason}"
        if outcome is Outcome.BUSY:
            raise Unreachable(text)
        if outcome is Outcome.REFUSED:
            raise Rejected(text)
        if outcome is Outcome.WARNED:
            _log.warning(text)

    def _silence(self, result: Result) -> Unreachable:
        """No answer: it may have been stored or not, so the same object goes again, over a new association."""
        return Unreachable(
            f"destination {self.name!r} fell silent or broke off while storing {result.sop_instance_uid}; "
            "it will be sent again"
        )

    def _finds(self, line: Any, result: Result, message_id: int) -> bool:
        deadline = time.monotonic() + 10 * self.timeout_s
        found = False
        try:
            for status, identifier in line.send_c_find(_question(result), FIND_SOP_CLASS, msg_id=message_id):
                self._judge_find(status.get("Status"))
                found = found or (
                    identifier is not None and identifier.get("SOPInstanceUID") == result.sop_instance_uid
                )
                if time.monotonic() > deadline:
                    line.abort()
                    raise Unreachable(f"destination {self.name!r} does not come to an end answering C-FIND")
        except RuntimeError:
            raise Unreachable(f"destination {self.name!r} broke off while being asked by C-FIND") from None
        return found

    def _judge_find(self, status: int | None) -> None:
        if status is None:
            raise Unreachable(f"destination {self.name!r} fell silent while being asked by C-FIND")
        if status in (0x0000, 0xFF00, 0xFF01):
            return
        text = f"it answered 0x{status:04X} to C-FIND"
        if status == 0x0122 or status >> 8 == 0xA9:
            raise Rejected(text)
        raise Unreachable(f"destination {self.name!r}: {text}")


def _syntaxes(result: Result) -> list[str]:
    """Transfer syntaxes in the order of liking: the file's own, then what it can be unpacked to without a decoder."""
    own = result.transfer_syntax_uid
    return [own, *(s for s in NATIVE_TRANSFER_SYNTAXES if s != own)] if own in _TRANSCODABLE else [own]


def _proposals(results: Sequence[tuple[Result, Path]]) -> list[Pair]:
    pairs = ((result.sop_class_uid, syntax) for result, _ in results for syntax in _syntaxes(result))
    return list(dict.fromkeys(pairs))


def _transcode(path: Path, syntax: str, folder: Path) -> Path:
    """A copy of an uncompressed file in another uncompressed transfer syntax."""
    copy = folder / "transcoded.dcm"
    try:
        with config.disable_value_validation():
            dataset = dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(
                copy, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=True
            )
    except (OSError, ValueError, AttributeError, KeyError, NotImplementedError, InvalidDicomError) as error:
        raise Rejected(
            f"a result cannot be written as {name_of(syntax)}, which is all the destination takes "
            f"({type(error).__name__})"
        ) from None
    return copy


def _question(result: Result) -> Dataset:
    question = Dataset()
    question.QueryRetrieveLevel = "IMAGE"
    question.StudyInstanceUID = result.study_uid
    question.SeriesInstanceUID = result.series_uid
    question.SOPInstanceUID = result.sop_instance_uid
    return question
