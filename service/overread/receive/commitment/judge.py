"""The verdict on a request: each instance is looked up in the ledger and its bytes are read again from the spool.

Runs in the clerk's process, beside the indexer: it alone may write the ledger, and nobody waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import xxhash

from overread.domain.events import CommitmentJudged, Trouble
from overread.ledger import Ledger, commitments
from overread.ledger.commitments import GAVE_UP, REPORTED, Held, Transaction
from overread.ports import Herald
from overread.receive.commitment.docket import ASKED, JUDGED, TOLD, Case, Docket
from overread.receive.commitment.request import NO_SUCH_INSTANCE, PROCESSING_FAILURE
from overread.spool import Spool
from overread.spool.durable import sync_data, sync_folder
from overread.spool.files import PIECE_BYTES, dataset_start

CLASS_INSTANCE_CONFLICT, DUPLICATE_TRANSACTION = 0x0119, 0x0131  # PS3.4 Section J.3.3.1.2
TURN_S, REST_S = 0.05, 2.0
# How long an instance may be on its way from the spool to the ledger before it counts as missing.
SETTLE_S = 2.0

_log = logging.getLogger("overread.receive")


class Judge:
    """``behind`` says why the ledger does not know all of the spool yet, or None; ``keep_s`` is what is promised."""

    def __init__(
        self,
        docket: Docket,
        spool: Spool,
        open_ledger: Callable[[], Ledger],
        *,
        behind: Callable[[], str | None],
        keep_s: float,
        herald: Herald,
    ) -> None:
        self._docket, self._spool, self._open = docket, spool, open_ledger
        self._behind, self._keep_s, self._herald = behind, keep_s, herald
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    def start(self) -> None:
        """Judge what is open, then what comes."""
        self._thread.start()

    def stop(self) -> None:
        """End after the case at hand; the others are judged after the next start."""
        self._ending.set()
        self._thread.join(30)

    def _run(self) -> None:
        ledger: Ledger | None = None
        while not self._ending.is_set():
            try:
                ledger = ledger or self._open()
                self.turn(ledger)
                rest = TURN_S
            except Exception as error:
                # The edge of this thread: whatever database or disk throw, the cases wait in the docket.
                self._herald(Trouble("commitment", type(error).__name__))
                rest = REST_S
            self._ending.wait(rest)
        if ledger is not None:
            ledger.close()

    def turn(self, ledger: Ledger) -> None:
        """Take each case that is open one step further."""
        for case in self._docket.cases():
            if case.state not in (ASKED, TOLD) or self._ending.is_set():
                continue
            with self._docket.claim(case) as mine:
                if mine and case.state == ASKED:
                    self._judge(ledger, case)
                elif mine:
                    state = REPORTED if case.outcome == "reported" else GAVE_UP
                    commitments.reported(ledger, _transaction(case), state, case.reason, case.told_at)
                    self._docket.close(case)

    def _judge(self, ledger: Ledger, case: Case) -> None:
        contents = commitments.held(ledger, case.references)
        if self._may_still_come(case, contents):
            return
        failures = self._failures(case, contents)
        now = time.time()
        good = {uid: found for uid, found in contents.items() if uid not in failures}
        gone = commitments.promise(ledger, _transaction(case), good, now + self._keep_s, now)
        if gone is None:
            failures = dict.fromkeys(case.references, DUPLICATE_TRANSACTION)
        else:
            failures |= dict.fromkeys(gone, NO_SUCH_INSTANCE)
        judged = replace(case, state=JUDGED, failures=failures, judged_at=now)
        if self._docket.advance(case, judged):
            self._herald(CommitmentJudged(case.calling_ae, len(case.references) - len(failures), len(failures)))

    def _may_still_come(self, case: Case, contents: Mapping[str, object]) -> bool:
        """Whether an instance that the ledger does not know may have been acknowledged all the same."""
        missing = [uid for uid in case.references if uid not in contents]
        if not missing:
            return False
        if abs(time.time() - case.asked_at) < SETTLE_S or self._behind() is not None:
            return True
        return bool(self._spool.came_lately(missing, since=case.asked_at - 3600.0))

    def _failures(self, case: Case, contents: Mapping[str, Iterable[Held]]) -> dict[str, int]:
        failures: dict[str, int] = {}
        synced: dict[str, bool] = {}
        for uid, sop_class in case.references.items():
            found = contents.get(uid, ())
            if not found:
                failures[uid] = NO_SUCH_INSTANCE
            elif any(content.sop_class_uid != sop_class for content in found):
                failures[uid] = CLASS_INSTANCE_CONFLICT
            elif not all(self._is_there(content) and self._is_named(content, synced) for content in found):
                failures[uid] = PROCESSING_FAILURE
        return failures

    def _is_named(self, content: Held, synced: dict[str, bool]) -> bool:
        """Make sure, once for each folder, that the disk has the names in it."""
        folder = self._spool.absolute(content.path).parent
        if str(folder) not in synced:
            try:
                sync_folder(folder)
                synced[str(folder)] = True
            except OSError as error:
                _log.warning("a folder of instances that were asked to be committed fails: %s", error.strerror)
                synced[str(folder)] = False
        return synced[str(folder)]

    def _is_there(self, content: Held) -> bool:
        """Read the bytes again, compare them with the ledger, and make sure that the disk has them."""
        try:
            with self._spool.absolute(content.path).open("rb") as file:
                start = dataset_start(file)
                size = os.fstat(file.fileno()).st_size - start
                file.seek(start)
                digest = xxhash.xxh3_128()
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                sync_data(file.fileno())
        except OSError as error:
            _log.warning("an instance that was asked to be committed cannot be read: %s", error.strerror)
            return False
        # A ledger of the first version knows contents by another digest, of 64 digits.
        same = digest.hexdigest() == content.digest or len(content.digest) != len(digest.hexdigest())
        return same and content.size_bytes in (None, size)


def _transaction(case: Case) -> Transaction:
    return Transaction(case.calling_ae, case.transaction_uid, case.digest, case.asked_at, len(case.references))
