"""When to ask whether a study is whole: after it has been quiet for as long as its slowest modality may pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overread.domain.events import StudyCompleted
from overread.ledger import Ledger, arrivals
from overread.ledger.arrivals import Waiting
from overread.ports import Herald


@dataclass(frozen=True)
class QuietTime:
    """Seconds without a new instance after which a study counts as whole; ``by_modality`` overrides ``default_s``.

    They count from ``since`` at the earliest, when this service began to listen: before, no sender could go on with
    what it had begun.
    """

    default_s: float
    by_modality: Mapping[str, float] = field(default_factory=dict)
    since: float = 0.0

    def of(self, study: Waiting) -> float:
        """The longest pause that any modality of the study is allowed, in seconds."""
        return max((self.by_modality.get(m, self.default_s) for m in study.modalities), default=self.default_s)

    def over(self, study: Waiting, now: float) -> bool:
        """Whether a study has been quiet for long enough at ``now``, in seconds since the epoch."""
        # Both ways: an image may come just after ``now`` was read, and a clock set back must not keep a study waiting.
        return abs(now - max(study.last_at, self.since)) >= self.of(study)


def close_quiet_studies(ledger: Ledger, quiet: QuietTime, now: float, herald: Herald) -> int:
    """Move the studies that have been quiet long enough to COMPLETE; returns how many."""
    closed = 0
    for study in arrivals.waiting(ledger):
        if not quiet.over(study, now):
            continue
        revision = arrivals.complete(ledger, study, now)
        if revision is not None:
            herald(StudyCompleted(study.study_uid, study.instances, revision))
            closed += 1
    return closed
