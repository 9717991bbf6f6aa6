"""Storage Commitment as the PACS answers it (PS3.4 Annex J): N-ACTION is taken, N-EVENT-REPORT follows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_context, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined,unused-ignore]

from overread.domain.peer import Peer
from overread.simulate.mischief import Fault, Mischief, Mishap

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
ALL_COMMITTED, SOME_NOT = 1, 2
NO_SUCH_INSTANCE, PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0112, 0x0110, 0x0115
AFTER_THE_ANSWER_S = 0.05
_log = logging.getLogger(__name__)


class Committing:
    """Answers on an association of its own to who is among ``peers``, to others on the association that asked."""

    def __init__(
        self, ae_title: str, holds: Callable[[str], bool], mischief: Mischief, peers: Mapping[str, Peer]
    ) -> None:
        self._ae_title, self._holds, self._mischief, self._peers = ae_title, holds, mischief, peers

    def on_action(self, event: Any) -> tuple[int, None]:
        """pynetdicom's handler of N-ACTION."""
        refused = self._mischief.strikes(Mishap.COMMIT_REFUSE)
        if refused:
            return refused.status or PROCESSING_FAILURE, None
        try:
            report, kind = self._report(event.action_information)
        except AttributeError:
            return INVALID_ARGUMENT, None
        if self._mischief.strikes(Mishap.COMMIT_NEVER):
            return 0x0000, None
        late = self._mischief.strikes(Mishap.COMMIT_LATE) or Fault(Mishap.COMMIT_LATE, seconds=AFTER_THE_ANSWER_S)
        threading.Thread(target=self._tell, args=(event.assoc, report, kind, late), daemon=True).start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> tuple[Dataset, int]:
        denied = self._mischief.strikes(Mishap.COMMIT_DENY) is not None
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        good, bad = [], []
        for item in asked.ReferencedSOPSequence:
            told = Dataset()
            told.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            told.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
            if not denied and self._holds(str(item.ReferencedSOPInstanceUID)):
                good.append(told)
            else:
                told.FailureReason = NO_SUCH_INSTANCE
                bad.append(told)
        if good:
            report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        return report, SOME_NOT if bad else ALL_COMMITTED

    def _tell(self, line: Any, report: Dataset, kind: int, late: Fault) -> None:
        self._mischief.stall(late)
        peer = self._peers.get(str(line.requestor.ae_title).strip())
        try:
            if peer is None:
                self._say(line, report, kind)
            else:
                self._call(peer, report, kind)
        except (RuntimeError, ValueError, AttributeError) as error:
            _log.warning("a storage commitment was not told: %s", type(error).__name__)

    def _call(self, peer: Peer, report: Dataset, kind: int) -> None:
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        contexts = [build_context(StorageCommitmentPushModel)]
        line = AE(self._ae_title).associate(peer.host, peer.port, contexts, peer.ae_title, ext_neg=[role])
        if not line.is_established:
            _log.warning("a storage commitment was not told: %s takes no association", peer.ae_title)
            return
        self._say(line, report, kind)
        line.release()

    def _say(self, line: Any, report: Dataset, kind: int) -> None:
        line.send_n_event_report(report, kind, StorageCommitmentPushModel, WELL_KNOWN_INSTANCE)
