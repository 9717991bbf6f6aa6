"""Storage Commitment as the user (PS3.4 Annex J): N-ACTION asks, N-EVENT-REPORT answers, maybe much later."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID

from overread.deliver.association import IMPLICIT, Line, Message
from overread.deliver.content import as_dataset, encoded
from overread.deliver.proofs import Asker, Witness, asked_over, cannot_be_asked
from overread.deliver.status import outcome_of
from overread.domain.command_set import (
    ACTION_TYPE,
    ANSWERED,
    CLASS,
    EVENT_TYPE,
    FIELD,
    INSTANCE,
    MESSAGE_ID,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONSE,
    STATUS,
    Value,
)
from overread.domain.delivery import Item, Outcome, Proven, Standing
from overread.domain.errors import Unreachable
from overread.domain.events import DeliveriesLost, DeliveryTried, ResultArrived
from overread.domain.result import DeliveryState
from overread.ledger import Ledger, deliveries, letters
from overread.ledger.letters import Awaited, Verdict
from overread.ports import Herald
from overread.spool.answers import AnswerBox, CommitmentAnswer, read_report

PUSH_MODEL, WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
NO_SUCH_INSTANCE = 0x0112
ASK_AGAIN_S = 60.0
_SAME_ASSOCIATION_S = 1.0


@dataclass(frozen=True)
class Committer:
    """``proof = "commitment"``: an answer is awaited for ``deadline_s``, then ``fallback`` is asked, or the same anew.

    Answers go into ``box``, wherever they come from.
    """

    deadline_s: float
    box: AnswerBox
    fallback: Witness | None = None

    def __call__(self, asker: Asker, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """One transaction for all. Raises Unreachable, or Rejected when it does not know the service."""
        late = [item for item in items if item.transaction_uid and self.fallback]
        if late and self.fallback:
            yield from self.fallback(asker, late)
        asked = [item for item in items if item not in late]
        if not asked:
            return
        transaction_uid = str(UID(f"2.25.{uuid.uuid4().int}"))
        with asked_over(asker, PUSH_MODEL, "storage commitment") as line:
            self._ask(asker, line, transaction_uid, asked)
            for item in asked:
                why = "storage commitment is awaited"
                yield item, Proven(Standing.AWAITED, why, transaction_uid, self.deadline_s)
            with contextlib.suppress(Unreachable):  # it has been asked; the answer may come on another association
                if line.says_something(_SAME_ASSOCIATION_S):
                    self._listen(line)

    def _ask(self, asker: Asker, line: Line, transaction_uid: str, items: Sequence[Item]) -> None:
        command: dict[int, Value] = {REQUESTED_CLASS: PUSH_MODEL, FIELD: N_ACTION_RQ, MESSAGE_ID: line.next_id()}
        command |= {REQUESTED_INSTANCE: WELL_KNOWN_INSTANCE, ACTION_TYPE: 1}
        information = encoded(_request(transaction_uid, items), implicit=True)
        line.say(line.accepted[PUSH_MODEL, IMPLICIT], command, information)
        answer = line.hear(line.call.timeout_s)
        while answer.command.get(FIELD) == N_EVENT_REPORT_RQ:  # some answer before they have said that they will
            self._take(line, answer)
            answer = line.hear(line.call.timeout_s)
        status = answer.status
        if status in (0x0000, None):
            return
        outcome, reason = outcome_of(status or 0)
        if outcome in (Outcome.REFUSED, Outcome.MISCONFIGURED):
            raise cannot_be_asked(asker, "storage commitment", f"it answered 0x{status:04X}: {reason}")
        raise Unreachable(f"destination {asker.name!r}: it answered 0x{status:04X} to storage commitment: {reason}")

    def _listen(self, line: Line) -> None:
        report = line.hear(line.call.timeout_s)
        if report.command.get(FIELD) == N_EVENT_REPORT_RQ:
            self._take(line, report)

    def _take(self, line: Line, report: Message) -> None:
        try:
            self.box.put(read_report(as_dataset(report.data or b"", IMPLICIT)))
            status = 0x0000
        except (ValueError, OSError):
            status = 0x0110
        asked = {ANSWERED: report.command.get(MESSAGE_ID), EVENT_TYPE: report.command.get(EVENT_TYPE)}
        answer: dict[int, Value] = {n: value for n, value in asked.items() if value is not None}
        answer |= {CLASS: PUSH_MODEL, FIELD: N_EVENT_REPORT_RQ | RESPONSE, INSTANCE: WELL_KNOWN_INSTANCE}
        line.say(report.context_id, {**answer, STATUS: status})


def _request(transaction_uid: str, items: Sequence[Item]) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_reference(item) for item in items]
    return information


def _reference(item: Item) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.result.sop_class_uid
    reference.ReferencedSOPInstanceUID = item.result.sop_instance_uid
    return reference


def take_answers(ledger: Ledger, box: AnswerBox, herald: Herald, now: Callable[[], float] = time.time) -> int:
    """Write the answers that have come into the ledger; returns to how many deliveries they spoke."""
    spoken = 0
    for path, answer in box.answers():
        awaited = {a.id: a for a in letters.awaited(ledger, answer.transaction_uid)}
        verdicts = {v.id: v for a in awaited.values() if (v := verdict(a, answer, now())) is not None}
        taken = letters.judge(ledger, answer.transaction_uid, list(verdicts.values()))
        asked_for = {a.sop_instance_uid for a in awaited.values()}
        box.done(path, wholly=asked_for >= {*answer.succeeded, *answer.failed})
        _tell(ledger, [(awaited[i], verdicts[i]) for i in sorted(taken)], herald, now())
        spoken += len(taken)
    return spoken


def _tell(ledger: Ledger, told: Sequence[tuple[Awaited, Verdict]], herald: Herald, now: float) -> None:
    sent = [(a, v) for a, v in told if a.state is DeliveryState.SENT]
    for a, v in sent:
        outcome = "verified" if v.state is DeliveryState.VERIFIED else "unproven"
        herald(DeliveryTried(a.destination, a.kind, outcome, 0.0))
    for model, last_at in deliveries.arrived(ledger, [a.job_id for a, _ in sent]):
        herald(ResultArrived(model, max(0.0, now - last_at)))
    lost = Counter(a.destination for a, v in told if a.state is not DeliveryState.SENT and v.cause)
    for destination, count in lost.items():
        herald(DeliveriesLost(destination, count))


def verdict(awaited: Awaited, answer: CommitmentAnswer, now: float) -> Verdict | None:
    """What an answer means for one delivery: safe, to be sent again, to be asked for again, or a dead letter.

    None for one that was proven before and of which the answer says nothing that could be relied on.
    """
    uid = awaited.sop_instance_uid
    if uid in answer.succeeded and uid not in answer.failed:
        return Verdict(awaited.id, DeliveryState.VERIFIED)
    status = answer.failed.get(uid)
    if status == NO_SUCH_INSTANCE:
        reason = "storage commitment: it does not have it (0x0112); it is sent again"
        return Verdict(awaited.id, DeliveryState.PENDING, "lost" if _was_proven(awaited) else "unproven", reason)
    if _was_proven(awaited):
        return None
    if status is None:
        reason = "its storage commitment report does not name it; it is asked again"
        return Verdict(awaited.id, DeliveryState.SENT, "unproven", reason, now + ASK_AGAIN_S)
    outcome, words = outcome_of(status)
    reason = f"storage commitment: it answered 0x{status:04X}: {words}"
    if outcome in (Outcome.REFUSED, Outcome.MISCONFIGURED):
        return Verdict(awaited.id, DeliveryState.FAILED, outcome.value, reason)
    return Verdict(awaited.id, DeliveryState.SENT, "unproven", f"{reason}; it is asked again", now + ASK_AGAIN_S)


def _was_proven(awaited: Awaited) -> bool:
    return awaited.state is DeliveryState.VERIFIED
