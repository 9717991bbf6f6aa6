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
    """Seconds without a new instance after which a study counts as whole; ``by_modality`` overrides ``default_s``."""

    default_s: float
    by_modality: Mapping[str, float] = field(default_factory=dict)

    def of(self, study: Waiting) -> float:
        """The longest pause that any modality of the study is allowed, in seconds."""
        return max((self.by_modality.get(m, self.default_s) for m in study.modalities), default=self.default_s)


def close_quiet_studies(ledger: Ledger, quiet: QuietTime, now: float, herald: Herald) -> int:
    """Move the studies that have been quiet long enough to COMPLETE; returns how many."""
    closed = 0
    for study in arrivals.waiting(ledger):
        # Both ways: an image may come just after ``now`` was read, and a clock set back must not keep a study waiting.
        if abs(now - study.last_at) < quiet.of(study):
            continue
        revision = arrivals.complete(ledger, study, now)
        if revision is not None:
            herald(StudyCompleted(study.study_uid, study.instances, revision))
            closed += 1
    return closed
