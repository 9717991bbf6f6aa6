"""N-EVENT-REPORT from a PACS that was asked for storage commitment (PS3.4 J.3.3), on an association that it opens."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined,unused-ignore]

from overread.domain.events import Trouble
from overread.ports import Herald
from overread.spool.answers import AnswerBox, read_report

SUCCESS, PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0000, 0x0110, 0x0115


def context() -> PresentationContext:
    """The presentation context that is accepted, in both directions: the caller is the SCP, as it says by role
    selection, and reports; or the SCU, also when it says so, and asks (``receive.commitment``)."""
    accepted = build_context(StorageCommitmentPushModel)
    accepted.scu_role = accepted.scp_role = True
    return accepted


class Reports:
    """Keeps what a PACS reports, durable before it is told so; the outbox reads it."""

    def __init__(self, box: AnswerBox, herald: Herald) -> None:
        self._box, self._herald = box, herald

    def on_event_report(self, event: Any) -> tuple[int, Dataset | None]:
        """pynetdicom's handler of N-EVENT-REPORT."""
        try:
            self._box.put(read_report(event.event_information))
        except ValueError:
            return INVALID_ARGUMENT, None
        except Exception as error:
            # The edge to the peer: what was not kept must not be taken for kept; it will say it again.
            self._herald(Trouble("commitment", type(error).__name__))
            return PROCESSING_FAILURE, None
        return SUCCESS, None
