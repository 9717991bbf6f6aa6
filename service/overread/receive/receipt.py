"""What the listener hands on of an instance that is durable: little, for it is made while the sender waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from overread.domain.events import InstanceReceived
from overread.domain.study import Instance
from overread.spool.files import Stored
from overread.spool.header import Header

if TYPE_CHECKING:
    from overread.ledger.arrivals import Arrival


@dataclass(frozen=True)
class Receipt:
    """An instance in the spool, its header not yet put into words; ``at`` is when it came (seconds since the epoch).

    ``seconds`` it took from the command to the disk; ``called_ae`` is which of our AE titles it was sent to.
    """

    header: Header
    stored: Stored
    calling_ae: str
    at: float
    seconds: float
    called_ae: str = ""

    def event(self) -> InstanceReceived:
        """What everybody is told."""
        study_uid, sop_class_uid = self.header.uid("StudyInstanceUID"), self.header.uid("SOPClassUID")
        return InstanceReceived(self.calling_ae, study_uid, sop_class_uid, self.stored.size_bytes, self.seconds)

    @property
    def instance(self) -> Instance:
        """The instance as the ledger knows it."""
        return self.header.instance().stored(self.stored.path, self.stored.digest, self.calling_ae, self.called_ae)

    def arrival(self) -> Arrival:
        """What the ledger is told. The ledger is imported here: the listener never needs it."""
        from overread.ledger.arrivals import Arrival

        return Arrival(self.instance, self.size_bytes, self.at)

    @property
    def size_bytes(self) -> int:
        """Of the data set."""
        return self.stored.size_bytes
