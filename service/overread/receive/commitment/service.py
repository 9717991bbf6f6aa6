"""What the listener is given: N-ACTION in, and the reporter that answers later."""

from __future__ import annotations

import os
import time
from typing import Any

from pydicom.dataset import Dataset

from overread.domain.errors import Unreachable
from overread.domain.events import CommitmentRequested, Trouble
from overread.ports import Herald
from overread.receive.commitment.docket import Case, Docket
from overread.receive.commitment.reporter import Reporter
from overread.receive.commitment.request import (
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    Improper,
    read_request,
)

LONGEST_COMMENT = 64


class Commitment:
    """Takes requests of at most ``most`` instances each."""

    def __init__(self, docket: Docket, reporter: Reporter, most: int, herald: Herald) -> None:
        self._docket, self._reporter, self._most, self._herald = docket, reporter, most, herald

    def start(self) -> None:
        """Begin to report."""
        self._reporter.start()

    def stop(self) -> None:
        """Stop reporting; what is left is reported after the next start."""
        self._reporter.stop()

    def on_action(self, event: Any) -> tuple[Dataset, None]:
        """pynetdicom's handler of N-ACTION: 0x0000 once the request would survive a power cut."""
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        answer = Dataset()
        answer.Status, count = SUCCESS, 0
        try:
            transaction_uid, references = read_request(event.request, lambda: event.action_information, self._most)
            count = len(references)
            self._take(Case(calling_ae, transaction_uid, references, time.time(), os.getpid()), event.assoc)
        except Improper as error:
            answer.Status, answer.ErrorComment = error.status, error.reason[:LONGEST_COMMENT]
        except (OSError, Unreachable) as error:
            answer.Status = RESOURCE_LIMITATION
            answer.ErrorComment = f"it could not be written down ({type(error).__name__})"
        except Exception as error:
            # The edge to the peer: no fault may be taken for an acknowledgement.
            self._herald(Trouble("commitment", type(error).__name__))
            answer.Status = PROCESSING_FAILURE
        self._herald(CommitmentRequested(calling_ae, int(answer.Status), count))
        return answer, None

    def _take(self, case: Case, association: Any) -> None:
        self._docket.file(case)
        self._reporter.expect(case, association)
