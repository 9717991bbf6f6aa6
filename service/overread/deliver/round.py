"""One round: what is due at a destination is claimed, sent or asked for, and what became of each is written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from overread.deliver.patience import Patience, gives_up, next_try
from overread.deliver.storing import SLOWEST_BYTES_PER_S
from overread.domain.delivery import Item, Outcome, Proven, Standing, Told
from overread.domain.errors import NoConnection, Rejected, Unreachable
from overread.domain.events import DeliveryTried, ResultArrived
from overread.domain.result import DeliveryState
from overread.ledger import Ledger, deliveries
from overread.ledger.deliveries import Claim, Delivery, Mark
from overread.ledger.destinations import UNREACHABLE
from overread.ports import Destination, Herald

AT_ONCE = 100
FLUSH_S, FLUSH_MARKS = 0.2, 64
LEAST_LEASE_S = 60.0
LARGE_BYTES = 32 << 20
ASKED_BEFORE_RESENT = 2
SENT_BEFORE_ALTERED_IS_FINAL = 2
_COERCED = "0xB000"
_SAID = {
    Outcome.TAKEN: "sent",
    Outcome.WARNED: "warned",
    Outcome.DUPLICATE: "duplicate",
    Outcome.BUSY: "busy",
    Outcome.REFUSED: "rejected",
    Outcome.MISCONFIGURED: "misconfigured",
}


@dataclass(frozen=True)
class Terms:
    """How a destination is served: ``worker`` names who claims; ``in_order`` keeps the order within a study;
    ``timeout_s`` is its longest wait for one answer."""

    patience: Patience
    worker: str
    in_order: bool = True
    timeout_s: float = 30.0


@dataclass
class Round:
    """Claims of one destination. ``absolute`` turns a result's path into the file behind it."""

    ledger: Ledger
    destination: Destination
    terms: Terms
    absolute: Callable[[str], Path]
    herald: Herald
    rng: Random = field(default_factory=Random)

    def send(self, most: int = AT_ONCE) -> int:
        """Send what is due; returns how many were told of. Raises Unreachable after all has been written down."""
        claimed = self._claim(DeliveryState.PENDING, most)
        return self._go(claimed, self.destination.send, self._sent, self._unsent) if claimed else 0

    def prove(self, most: int = AT_ONCE) -> int:
        """Ask for what was sent; returns how many were told of. Raises Unreachable after all has been written down."""
        claimed = self._claim(DeliveryState.SENT, most)
        if not claimed:
            return 0
        try:
            return self._go(claimed, self.destination.prove, self._proven, self._unproven)
        except Rejected as error:
            marks = [Mark(d.id, DeliveryState.FAILED, "misconfigured", str(error)) for d in claimed]
            deliveries.mark(self.ledger, self.terms.worker, marks)
            self._tell(claimed, "misconfigured", 0.0)
            return len(claimed)

    def item(self, d: Delivery) -> Item:
        """A delivery as a destination is given it."""
        coerced = _COERCED in d.warning
        path = self.absolute(d.result.path)
        return Item(d.result, path, d.job_id, d.calling_ae, d.transaction_uid, coerced)

    def _claim(self, state: DeliveryState, most: int) -> list[Delivery]:
        claim = Claim(self.terms.worker, self._lease_s(), most, self.terms.in_order)
        return deliveries.claim(self.ledger, self.destination.name, state, claim)

    def _go(
        self,
        claimed: Sequence[Delivery],
        work: Callable[[Sequence[Item]], Iterator[tuple[Item, Told | Proven]]],
        mark: Callable[[Delivery, Told | Proven], Mark],
        left: Callable[[Delivery, Unreachable, bool], Mark],
    ) -> int:
        by_uid = {d.result.sop_instance_uid: d for d in claimed}
        with _Log(self, claimed) as log:
            try:
                for item, said in work([self.item(d) for d in claimed]):
                    delivery = by_uid.pop(item.result.sop_instance_uid)
                    passed = isinstance(said, Told) and said.outcome is Outcome.PASSED_OVER
                    log.note(delivery, mark(delivery, said), _outcome(said), at_once=passed)
            except Unreachable as error:
                log.leave([left(d, error, n == 0) for n, d in enumerate(by_uid.values())])
                self._tell([*by_uid.values()][:1], UNREACHABLE, 0.0)
                raise
            log.leave([self._untouched(d) for d in by_uid.values()])
        return log.told

    def _sent(self, d: Delivery, said: Told | Proven) -> Mark:
        assert isinstance(said, Told)
        outcome = said.outcome
        # Whose word is taken needs not be asked for it.
        state = DeliveryState.ACCEPTED if getattr(self.destination, "unasked", False) else DeliveryState.SENT
        taken = Mark(d.id, state, tried=True, asked=0, warning="", transaction_uid="")
        if outcome is Outcome.PASSED_OVER:
            return Mark(d.id, DeliveryState.DROPPED, outcome.value, said.reason, exposed=d.exposed)
        if outcome is Outcome.TAKEN:
            return taken
        if outcome is Outcome.WARNED:
            return replace(taken, cause="warned", reason=f"stored with a warning: {said.reason}", warning=said.reason)
        if outcome is Outcome.DUPLICATE:
            # Where nothing else is proven, this is: it says that it has an object, not that it has ours.
            return replace(
                taken, state=DeliveryState.SENT, cause="duplicate", reason=f"{said.reason}; it is verified instead"
            )
        if outcome is Outcome.BUSY:
            return self._later(Mark(d.id, DeliveryState.PENDING, "busy", said.reason, tried=True), d)
        return Mark(d.id, DeliveryState.FAILED, outcome.value, said.reason, tried=True, exposed=d.exposed)

    def _unsent(self, d: Delivery, error: Unreachable, first: bool) -> Mark:
        """A connection failed. The ``first`` may have been under way; the others had not been begun."""
        begun = first and not isinstance(error, NoConnection)
        exposed = None if begun else d.exposed
        return self._later(Mark(d.id, DeliveryState.PENDING, UNREACHABLE, str(error), tried=first, exposed=exposed), d)

    def _proven(self, d: Delivery, said: Told | Proven) -> Mark:
        assert isinstance(said, Proven)
        warned, cause = (f"stored with a warning: {d.warning}", "warned") if d.warning else ("", "")
        if said.standing is Standing.THERE:
            reason = "; ".join(filter(None, [warned, said.reason]))
            return Mark(d.id, DeliveryState.VERIFIED, cause, reason, transaction_uid="")
        if said.standing is Standing.UNASKED:
            return Mark(d.id, DeliveryState.ACCEPTED, cause, warned or "its word is taken")
        if said.standing is Standing.AWAITED:
            return self._awaited(d, said)
        return self._missing(d, said)

    def _awaited(self, d: Delivery, said: Proven) -> Mark:
        now = time.time()
        if gives_up(now - d.created_at, self.terms.patience.give_up_after_s):
            return Mark(d.id, DeliveryState.FAILED, "gave-up", "given up: no storage commitment has ever come")
        awaited = Mark(d.id, DeliveryState.SENT, "awaited", said.reason, now + said.wait_s)
        return replace(awaited, asked=d.asked + 1, transaction_uid=said.transaction_uid)

    def _missing(self, d: Delivery, said: Proven) -> Mark:
        altered = said.standing is Standing.ALTERED
        if not altered and d.asked + 1 < ASKED_BEFORE_RESENT:
            # It may only be slow to find what it has taken.
            return self._later(Mark(d.id, DeliveryState.SENT, "unproven", said.reason, asked=d.asked + 1), d)
        if altered and d.attempts >= SENT_BEFORE_ALTERED_IS_FINAL:
            reason = f"{said.reason}; if it is meant to change objects, choose a proof that does not compare"
            return Mark(d.id, DeliveryState.FAILED, "altered", reason)
        # The same object with the same UID goes again, which can double nothing.
        cause, reason = "altered" if altered else "unproven", f"{said.reason}; it is sent again"
        return self._later(Mark(d.id, DeliveryState.PENDING, cause, reason, asked=0, transaction_uid=""), d)

    def _unproven(self, d: Delivery, error: Unreachable, _: bool) -> Mark:
        # It was taken, only the question failed: nothing needs to be sent again.
        return self._later(Mark(d.id, DeliveryState.SENT, UNREACHABLE, str(error)), d)

    def _untouched(self, d: Delivery) -> Mark:
        return Mark(d.id, d.state, "", "", exposed=d.exposed)

    def _later(self, mark: Mark, d: Delivery) -> Mark:
        now, patience = time.time(), self.terms.patience
        if gives_up(now - d.created_at, patience.give_up_after_s):
            reason = f"given up after {patience.give_up_after_s / 86400:.3g} days: {mark.reason}"
            return replace(mark, state=DeliveryState.FAILED, cause="gave-up", reason=reason)
        wait = next_try(max(d.attempts, d.asked) + 1, patience.first_s, patience.longest_s, self.rng)
        return replace(mark, not_before=now + wait)

    def _lease_s(self, claimed: Sequence[Delivery] = ()) -> float:
        sizes = [_size(self.absolute(d.result.path)) for d in claimed]
        return LEAST_LEASE_S + 3 * self.terms.timeout_s + max([LARGE_BYTES, *sizes]) / SLOWEST_BYTES_PER_S

    def _tell(self, told: Sequence[Delivery], outcome: str, seconds: float) -> None:
        for d in told:
            self.herald(DeliveryTried(d.destination, d.result.kind, outcome, seconds))


class _Log:
    """What became of claimed deliveries, written down in small batches while the next ones are sent already; the claims
    are prolonged meanwhile. At its end everything is written, or what kept it from being written is raised."""

    def __init__(self, round_: Round, claimed: Sequence[Delivery]) -> None:
        self._round, self._claimed = round_, claimed
        self._marks: list[Mark] = []
        self._jobs: list[int] = []
        self._lease_s = round_._lease_s(claimed)
        self._flushed = self._noted = time.monotonic()
        self._renewed = self._flushed if self._lease_s == round_._lease_s() else 0.0
        self._writer = ThreadPoolExecutor(1, "deliver writes")
        self._writing: list[Future[None]] = []
        self.told = 0
        self._renew()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whatever else is wrong: what was told is written down. A Rejected leaves the rest to who catches it.
        self._flush()
        self._writer.shutdown()
        for done in self._writing:
            if kind is None:
                done.result()

    def note(self, d: Delivery, mark: Mark, outcome: str, *, at_once: bool) -> None:
        """One has been told of. ``at_once``: it must be known before anything else is sent."""
        now = time.monotonic()
        self._marks.append(mark)
        self.told += 1
        if outcome:
            self._round._tell([d], outcome, now - self._noted)
        if mark.state in (DeliveryState.VERIFIED, DeliveryState.ACCEPTED) and d.job_id not in self._jobs[-1:]:
            self._jobs.append(d.job_id)
        self._noted = now
        if at_once or len(self._marks) >= FLUSH_MARKS or now - self._flushed > FLUSH_S:
            written = self._flush()
            if at_once:
                written.result()
        self._renew()

    def leave(self, marks: Sequence[Mark]) -> None:
        """These were not told of."""
        self._marks += marks

    def _flush(self) -> Future[None]:
        marks, self._marks = self._marks, []
        jobs, self._jobs = self._jobs, []
        self._flushed = time.monotonic()
        self._writing.append(self._writer.submit(self._write, marks, jobs))
        return self._writing[-1]

    def _write(self, marks: Sequence[Mark], jobs: Sequence[int]) -> None:
        ledger = self._round.ledger
        deliveries.mark(ledger, self._round.terms.worker, marks)
        for model, last_at in deliveries.arrived(ledger, jobs):
            self._round.herald(ResultArrived(model, max(0.0, time.time() - last_at)))

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > self._lease_s / 4:
            self._renewed = time.monotonic()
            ids = [d.id for d in self._claimed]
            deliveries.renew(self._round.ledger, self._round.terms.worker, ids, time.time() + self._lease_s)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _outcome(said: Told | Proven) -> str:
    if isinstance(said, Told):
        return _SAID.get(said.outcome, "")
    if said.standing is Standing.THERE:
        return "verified"
    if said.standing is Standing.UNASKED:
        return "accepted"
    return "" if said.standing is Standing.AWAITED else "unproven"
