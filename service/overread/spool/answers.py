"""Answers to storage commitment that came to the listener, kept until the outbox has read them.

The listener's processes write, whoever delivers reads: one small file an answer, complete or not there at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overread.spool.durable import write_durable

# An answer may come before the question has been written down, wholly or in part; what nobody asks for goes after that.
STRAY_S = 600.0
MOST_REFERENCES = 100_000


@dataclass(frozen=True)
class CommitmentAnswer:
    """An N-EVENT-REPORT (PS3.4 J.3.3): SOP Instance UIDs that are safe there, and those that are not and why."""

    transaction_uid: str
    succeeded: frozenset[str] = frozenset()
    failed: Mapping[str, int] = field(default_factory=dict)


def read_report(information: Any) -> CommitmentAnswer:
    """What the data set of an N-EVENT-REPORT says. Raises ValueError when it is none."""
    try:
        succeeded = [str(i.ReferencedSOPInstanceUID) for i in information.get("ReferencedSOPSequence") or ()]
        failed = {
            str(i.ReferencedSOPInstanceUID): int(i.get("FailureReason") or 0x0110)
            for i in information.get("FailedSOPSequence") or ()
        }
        transaction_uid = str(information.TransactionUID)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("a storage commitment report without its UIDs") from error
    if not transaction_uid or len(succeeded) + len(failed) > MOST_REFERENCES:
        raise ValueError("a storage commitment report without a transaction, or of absurd length")
    return CommitmentAnswer(transaction_uid, frozenset(succeeded), failed)


class AnswerBox:
    """A folder of answers. Safe to use from many processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, answer: CommitmentAnswer) -> None:
        """Keep an answer; returns when it would survive a power cut. The same answer again is one. Raises OSError."""
        content = json.dumps(
            {
                "transaction_uid": answer.transaction_uid,
                "succeeded": sorted(answer.succeeded),
                "failed": dict(sorted(answer.failed.items())),
            }
        ).encode()
        write_durable(content, self._folder / f"{hashlib.sha256(content).hexdigest()[:32]}.json")

    def answers(self) -> Iterator[tuple[Path, CommitmentAnswer]]:
        """All that are kept, oldest first; what cannot be read is removed."""
        for path in sorted(self._folder.glob("*.json"), key=_age):
            try:
                values = json.loads(path.read_text("utf-8"))
                answer = CommitmentAnswer(values["transaction_uid"], frozenset(values["succeeded"]), values["failed"])
            except OSError:
                continue
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            yield path, answer

    def done(self, path: Path, *, wholly: bool) -> None:
        """An answer has been written into the ledger, ``wholly`` or not: what is left of it waits for ten minutes."""
        with contextlib.suppress(OSError):
            if wholly or path.stat().st_mtime < time.time() - STRAY_S:
                path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
