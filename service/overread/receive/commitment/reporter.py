"""Who asked is told: on the association on which it asked when that is open and quiet, else on a new one."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from overread.domain.events import CommitmentReported, Trouble
from overread.domain.peer import Peer
from overread.ports import Herald
from overread.receive.commitment.docket import JUDGED, TOLD, Case, Docket
from overread.receive.commitment.request import PROCESSING_FAILURE, RESOURCE_LIMITATION, SUCCESS, report
from overread.receive.commitment.telling import opened, tell

TURN_S, REST_S = 0.05, 0.25
AT_ONCE = 8
# A sender that speaks on the association on which it asked is not interrupted; it has so long to fall silent.
QUIET_S, SAME_ASSOCIATION_S = 0.15, 10.0
# The association may belong to another process of ours, which goes first.
OTHERS_S = 15.0
YOUNG_S = 1.0
LONGEST_RETRY_S = 900.0

_log = logging.getLogger("overread.receive")


@dataclass(frozen=True)
class Patience:
    """Seconds: for each answer, before the second try (doubled for each further one), and until it is given up."""

    answer_s: float = 30.0
    first_retry_s: float = 5.0
    give_up_s: float = 86400.0


class Reporter:
    """``peers`` are where modalities listen, by AE title; ``own_ae_title`` is who we are there."""

    def __init__(
        self, docket: Docket, peers: Mapping[str, Peer], own_ae_title: str, patience: Patience, herald: Herald
    ) -> None:
        self._docket, self._peers, self._own_ae_title = docket, peers, own_ae_title
        self._patience, self._herald = patience, herald
        # Case → the association on which it was asked, and when (monotonic).
        self._asked_on: dict[str, tuple[Any, float]] = {}
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._numbers = itertools.count(1)
        self._random = Random()
        self._pool = ThreadPoolExecutor(AT_ONCE, "commitment")
        self._thread = threading.Thread(target=self._run, name="commitment", daemon=True)

    def start(self) -> None:
        """Report what is judged, then what will be."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; what is not reported is after the next start."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def expect(self, case: Case, association: Any) -> None:
        """A case was asked for on this association, which is still open."""
        with self._lock:
            self._asked_on[case.name] = association, time.monotonic()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._turn()
            except Exception as error:
                # The edge of this thread: whatever the disk throws, the cases wait in the docket.
                self._herald(Trouble("commitment", type(error).__name__))
            self._ending.wait(TURN_S if self._asked_on else REST_S)

    def _turn(self) -> None:
        cases = self._docket.cases()
        self._forget({case.name for case in cases})
        remote: dict[str, list[Case]] = {}
        for case in cases:
            if case.state != JUDGED:
                continue
            association, asked = self._asked_on.get(case.name, (None, 0.0))
            if association is not None and association.is_established and not self._too_late(case):
                if _is_quiet(association) and time.monotonic() - asked >= QUIET_S:
                    self._begin(case.name, self._on_the_same, [case], association)
            elif self._is_due(case, association):
                remote.setdefault(case.calling_ae, []).append(case)
        for calling_ae, due in remote.items():
            self._begin(f"AE {calling_ae}", self._on_a_new, due, self._peers.get(calling_ae))

    def _forget(self, but: Collection[str]) -> None:
        """Let go of the associations of cases that are not open any more."""
        young = time.monotonic() - YOUNG_S  # what came after the docket was read is in no list yet
        with self._lock:
            self._asked_on = {n: (a, at) for n, (a, at) in self._asked_on.items() if n in but or at > young}

    def _too_late(self, case: Case) -> bool:
        waited = time.time() - case.judged_at
        return case.attempts > 0 or (case.calling_ae in self._peers and waited > SAME_ASSOCIATION_S)

    def _is_due(self, case: Case, association: Any) -> bool:
        now = time.time()
        if case.attempts or association is not None:
            return now >= case.not_before
        # An earlier life of this process may have had the same number, and the association is known a moment later.
        ours = case.owner == os.getpid() or not _lives(case.owner)
        return now >= (case.asked_at + YOUNG_S if ours else case.judged_at + OTHERS_S)

    def _begin(self, key: str, work: Callable[[list[Case], Any], None], cases: list[Case], where: Any) -> None:
        """Each modality, and each association, is spoken to by one thread at a time."""
        with self._lock:
            if key in self._busy:
                return
            self._busy.add(key)

        def run() -> None:
            try:
                work(cases, where)
            except Exception as error:
                # The edge to the peer's answers and to pynetdicom: the case stays in the docket.
                self._herald(Trouble("commitment", type(error).__name__))
            finally:
                with self._lock:
                    self._busy.discard(key)

        self._pool.submit(run)

    def _on_the_same(self, cases: list[Case], association: Any) -> None:
        for case in self._claimed(cases):
            self._conclude(case, self._tell(case, association), "same-association")

    def _on_a_new(self, cases: list[Case], peer: Peer | None) -> None:
        if peer is None:
            for case in self._claimed(cases):
                why = f"{case.calling_ae} did not wait for it, and receive.commitment.peers has no address of it"
                self._end(case, "nowhere", why)
            return
        with opened(peer, self._own_ae_title, self._patience.answer_s) as association:
            for case in self._claimed(cases):
                if association is None or self._ending.is_set():
                    self._again(case, "unreachable", f"no association with {peer.ae_title} at {peer.host}:{peer.port}")
                else:
                    self._conclude(case, self._tell(case, association), "new-association")

    def _claimed(self, cases: Iterable[Case]) -> Iterable[Case]:
        for case in cases:
            with self._docket.claim(case) as mine:
                if mine:
                    yield case

    def _tell(self, case: Case, association: Any) -> int | None:
        event_type, information = report(case.transaction_uid, case.references, case.failures)
        number = next(self._numbers) % 0xFFFF
        return tell(association, event_type, information, message_id=number, patience_s=self._patience.answer_s)

    def _conclude(self, case: Case, status: int | None, how: str) -> None:
        if status == SUCCESS:
            self._end(case, how, "", told=True)
        elif status is None:
            self._again(case, "unanswered", f"{case.calling_ae} did not answer the report")
        elif status in (PROCESSING_FAILURE, RESOURCE_LIMITATION):
            self._again(case, "refused", f"{case.calling_ae} answered 0x{status:04X}")
        else:
            self._end(case, "refused", f"{case.calling_ae} answered 0x{status:04X}")

    def _again(self, case: Case, outcome: str, why: str) -> None:
        now, tries = time.time(), case.attempts + 1
        if now - case.judged_at >= self._patience.give_up_s:
            self._end(case, "gave-up", why)
            return
        wait = min(LONGEST_RETRY_S, self._patience.first_retry_s * 2.0 ** min(case.attempts, 30))
        # Who did not answer on its own association is tried on a new one at once.
        wait = 0.0 if outcome == "unanswered" and tries == 1 else wait * self._random.uniform(0.5, 1.0)
        self._docket.advance(case, replace(case, attempts=tries, not_before=now + wait, reason=why))
        self._herald(CommitmentReported(case.calling_ae, outcome))

    def _end(self, case: Case, outcome: str, why: str, *, told: bool = False) -> None:
        ended = replace(case, state=TOLD, outcome="reported" if told else outcome, reason=why, told_at=time.time())
        self._docket.advance(case, ended)
        self._herald(CommitmentReported(case.calling_ae, outcome))
        if not told:
            _log.warning("the outcome of a storage commitment was not taken: %s", why)


def _is_quiet(association: Any) -> bool:
    """Whether the peer has said nothing for a moment: a report in the middle of its C-STORE would surprise it."""
    timer = association.dul._idle_timer
    return timer.timeout is None or timer.timeout - timer.remaining >= QUIET_S


def _lives(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists() if Path("/proc/self").exists() else True
