"""A batch of arrivals into the ledger, in one transaction, and told to everybody once it is durable there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from overread.domain.errors import Refused
from overread.domain.events import InstancesIndexed, Trouble
from overread.ledger import Ledger, arrivals
from overread.ledger.arrivals import Arrival
from overread.ports import Herald

_log = logging.getLogger("overread.receive")


def enter(ledger: Ledger, batch: Sequence[Arrival], herald: Herald) -> None:
    """Write a batch to the ledger. Raises whatever the database raises when it is away: nothing is written then.

    A value that the database does not take holds up neither what came with it nor what comes after: the batch is
    halved until it stands alone.
    """
    try:
        recorded = arrivals.record(ledger, batch)
    except Refused as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            enter(ledger, batch[:middle], herald)
            enter(ledger, batch[middle:], herald)
        else:
            herald(Trouble("receive", type(error).__name__))
        return
    herald(InstancesIndexed(recorded.fresh, recorded.duplicates, recorded.conflicts))
    for study_uid in recorded.disputed:
        _log.warning("other content came under known SOP Instance UIDs of study %s; see overread explain", study_uid)
